"""The hard assignment of scores on candidates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from sinkhorn_rebasin.assignment.scores import check_finite
from sinkhorn_rebasin.assignment.sparse.candidates import check_candidates

__all__ = ["sparse_assignment"]

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]


def sparse_assignment(scores: Tensor, candidates: Tensor, floor: float = 0.0) -> Tensor:
    r"""Find the permutation with the largest total score.

    It is :func:`~sinkhorn_rebasin.assignment.hard_assignment` of the matrix that has the scores at the candidates and
    ``floor`` everywhere else, to which the sparse soft permutation tends as τ → 0, in O(nk) memory.

    Rows take a candidate above the floor or none. Those left over take the columns left over, at the floor: no
    permutation gains more. Where a column left over is a row's candidate below the floor, the whole matrix is solved.

    Args:
        scores, candidates: shape (..., n, k), as for :func:`sparse_sinkhorn`.
        floor: the score of all other pairs.

    Returns:
        Column of each row, shape (..., n), dtype long.

    Raises:
        AssignmentError: Scores or candidates that do not belong together.

    Example:
        >>> sparse_assignment(torch.tensor([[2.0], [1.0], [3.0]]), torch.tensor([[1], [1], [0]])).tolist()
        [1, 2, 0]

    Source: R. Jonker, A. Volgenant (1987), in :func:`scipy.sparse.csgraph.min_weight_full_bipartite_matching`.
    """
    check_candidates(scores, candidates)
    check_finite(scores.detach())
    n, k = scores.shape[-2:]
    gains = (scores.detach().cpu().double() - floor).reshape(-1, n, k).numpy()
    columns = candidates.cpu().reshape(-1, n, k).numpy()
    solved = [_assigned(*pair) for pair in zip(gains, columns, strict=True)]
    return torch.from_numpy(np.stack(solved)).to(scores.device).reshape(scores.shape[:-1])


def _assigned(gains: Numbers, columns: Indices) -> Indices:
    n = len(gains)
    rows, places = np.nonzero(gains > 0)
    # Every row may stay without a candidate, at a column of its own behind the others.
    indices = np.concatenate([columns[rows, places], np.arange(n, 2 * n)])
    order = np.argsort(np.concatenate([rows, np.arange(n)]), kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n) + 1)])
    # All weights must be positive; a constant for each row changes no optimum.
    unit = max(1.0, float(np.abs(gains).max()))
    weights = np.concatenate([gains[rows, places] + unit, np.full(n, unit)])
    graph = csr_array((weights[order], indices[order], starts), shape=(n, 2 * n))
    assigned = np.asarray(min_weight_full_bipartite_matching(graph, maximize=True)[1], dtype=np.int64)
    alone = np.flatnonzero(assigned >= n)
    free = np.setdiff1d(np.arange(n), assigned, assume_unique=True)
    assigned[alone] = free
    below = (gains[alone] < 0) & (columns[alone] == free[:, None])
    if below.any():
        return _without_losses(gains, columns, assigned, alone, free)
    return assigned


def _without_losses(
    gains: Numbers, columns: Indices, assigned: Indices, alone: Indices, free: Indices
) -> Indices:
    """Match what is left over, and avoid candidates below the floor."""
    place = np.full(len(gains), -1)
    place[free] = np.arange(len(free))
    losses = np.zeros((len(alone), len(free)))
    at = place[columns[alone]]
    known = at >= 0
    losses[np.nonzero(known)[0], at[known]] = np.minimum(gains[alone], 0.0)[known]
    rows, chosen = linear_sum_assignment(losses, maximize=True)
    if losses[rows, chosen].sum() == 0:
        assigned[alone] = free[chosen]
        return assigned
    whole = np.zeros((len(gains), len(gains)))
    np.put_along_axis(whole, columns, gains, axis=1)
    return np.asarray(linear_sum_assignment(whole, maximize=True)[1], dtype=np.int64)
