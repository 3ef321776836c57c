"""Column potentials of the hard assignment: the start of the soft one at low temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.hungarian import hard_assignment

__all__ = ["assignment_potentials", "sweeping_potentials"]

SOFTNESS, NEAREST, ROWS = (0.3, 0.1), 8, 256
"""Temperatures of sweeps, in units of what a row's best column gains over its eighth, seen in so many rows."""

BLOCK = 2**17
"""Scores whose exponentials are taken at a time, which stay in the processor's cache."""


def assignment_potentials(scores: Tensor) -> Tensor:
    r"""Find column potentials that reproduce a hard assignment.

    They are y such that every row of X + y has its largest entry at its assigned column.

    .. math:: X_{ij} + y_j \le X_{i\pi(i)} + y_{\pi(i)}

    These are the dual variables of the linear program that the soft permutation tends to as τ → 0. They
    are shortest paths in the graph of exchanges; the mean of the paths from and to every column lies away
    from the border of the feasible set, where the entropic solution lies.

    Args:
        scores: X, shape (B, n, n), finite.

    Returns:
        y, shape (B, n), mean zero.
    """
    columns = hard_assignment(scores)
    exact = scores.double()
    # loss[i, j] >= 0 along every cycle: what row i gives up when it takes the column of row j
    taken = exact.gather(-1, columns.unsqueeze(-2).expand_as(exact))
    loss = taken.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) - taken
    y = 0.5 * (_shortest(loss) - _shortest(loss.mT))
    y = torch.zeros_like(y).scatter(-1, columns, y)
    return (y - y.mean(-1, keepdim=True)).to(scores.dtype)


def sweeping_potentials(scores: Tensor, start: Tensor | None = None, sweeps: int = 10) -> Tensor:
    r"""Find column potentials that make a hard assignment fast.

    A few Sinkhorn sweeps at a low temperature say which columns too many rows want,

    .. math:: y = \tau \log v, \qquad u = 1 / K v, \quad v = 1 / K^\top u, \quad K = e^{X / \tau} .

    Any potentials lead to the exact assignment; these lead there in a third of the time where it is hard. τ follows
    what the best columns of a row gain over the next ones, and falls, since columns compete at that scale: where
    scores are nearly of rank one, as those of sorted weights, that is a small part of their deviation.

    Args:
        scores: X, shape (n, n), finite.
        start: y of like scores, shape (n,); None starts from the means of the columns.
        sweeps: how many.

    Returns:
        y, shape (n,).

    Example:
        >>> scores = torch.tensor([[9.0, 1.0], [8.0, 2.0]])
        >>> y = sweeping_potentials(scores)
        >>> bool(y[0] < y[1])   # both rows want the first column
        True
    """
    wide = scores.detach().float()
    if start is not None:
        return _swept(wide, start.to(wide), SOFTNESS[-1], sweeps)
    y = -wide.mean(0)
    for softness in SOFTNESS:
        y = _swept(wide, y, softness, sweeps // len(SOFTNESS))
    return y


def _swept(scores: Tensor, y: Tensor, softness: float, sweeps: int) -> Tensor:
    """Improve potentials by sweeps.

    They are at the scale at which columns compete for a row.
    """
    nearest = (scores[:: max(1, len(scores) // ROWS)] + y).topk(min(NEAREST, len(scores)), dim=1).values
    temperature = softness * float((nearest[:, 0] - nearest[:, -1]).median())
    if not temperature > 0:
        return y
    kernel = torch.empty_like(scores)
    step = max(1, BLOCK // len(scores))
    for at in range(0, len(scores), step):
        block = scores[at : at + step] + y
        torch.exp(block.sub_(block.amax(1, keepdim=True)).div_(temperature), out=kernel[at : at + step])
    tiny = torch.finfo(scores.dtype).tiny
    v = torch.ones_like(y)
    for _ in range(sweeps):
        u = (kernel @ v).clamp_min_(tiny).reciprocal_()
        v = (u @ kernel).clamp_min_(tiny).reciprocal_()
    return y + temperature * v.log().clamp_(-60, 60)


def _shortest(loss: Tensor) -> Tensor:
    """Find the largest feasible potentials by Bellman-Ford.

    They are y <= 0 with y_j <= y_i + loss_ij. An optimum has no negative cycle.
    """
    y = loss.new_zeros(loss.shape[:-1])
    for _ in range(loss.shape[-1]):
        nearer = torch.minimum(y, (y.unsqueeze(-1) + loss).amin(-2))
        if torch.equal(nearer, y):
            break
        y = nearer
    return y
