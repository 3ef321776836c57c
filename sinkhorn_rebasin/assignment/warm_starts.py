"""Starts from far away: what they would do to the scores, and the start in their place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["usable_start"]


def usable_start(
    scores: Tensor,
    temperature: float,
    tolerance: float,
    start: Tensor,
    cold_start: Callable[[Tensor], Tensor],
) -> Tensor:
    r"""Replace starts that would swallow digits of scores.

    The exponents are (X + y) / τ. Their rounding, about eps·max|y| / τ, is an error of X that no marginal shows. It
    does no harm below the tolerance, nor where it is no more than that of X / τ itself: potentials of a solution
    spread no further than the scores do.

    Args:
        scores: X, shape (B, n, n).
        temperature: τ > 0.
        tolerance: Largest rounding that is borne, relative to an entry of P.
        start: y, shape (B, n), finite.
        cold_start: X, shape (k, n, n), of the matrices whose start is left out, to their start, shape (k, n).

    Example:
        >>> scores = torch.randn(1, 4, 4)
        >>> start = torch.tensor([[1e6, 1e6, 1e6 + 2, 1e6]])
        >>> usable_start(scores, 0.1, 1e-6, start, lambda x: torch.zeros_like(x[..., 0]))
        tensor([[-1., -1.,  1., -1.]])
        >>> usable_start(scores, 0.1, 1e-6, start * torch.arange(4), lambda x: torch.zeros_like(x[..., 0]))
        tensor([[0., 0., 0., 0.]])
    """
    borne = tolerance * temperature / torch.finfo(start.dtype).eps
    if float(start.abs().amax()) <= borne:
        return start
    # A constant says nothing, and goes first.
    start = start - (0.5 * start.amax(-1, keepdim=True) + 0.5 * start.amin(-1, keepdim=True))
    size = start.abs().amax(-1)
    far = size > (scores.amax((-1, -2)) - scores.amin((-1, -2))).clamp_min(borne)
    if bool(far.any()):
        start[far] = cold_start(scores[far])
    return start
