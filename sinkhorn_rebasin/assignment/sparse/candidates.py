"""What the candidates of score rows must be, and the best of many pairs, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError

__all__ = ["best_pairs", "check_candidates"]

BLOCK = 2**22
"""Pairs that are looked at together."""


def check_candidates(scores: Tensor, candidates: Tensor) -> None:
    """Raise AssignmentError unless each score has one column.

    Columns must lie in range; that they are distinct in each row is the caller's to see to.

    >>> check_candidates(torch.zeros(3, 2), torch.tensor([[0, 1], [1, 2], [2, 0]]))
    """
    if scores.dtype not in (torch.float32, torch.float64) or scores.ndim < 2:
        raise AssignmentError(
            f"Expected scores of shape (..., n, k) in float32 or float64 but got shape {tuple(scores.shape)} in "
            f"{scores.dtype}."
        )
    n, k = scores.shape[-2:]
    if candidates.shape != scores.shape or candidates.dtype != torch.long or not 0 < k <= n:
        raise AssignmentError(
            f"Expected long candidates of shape {tuple(scores.shape)}, as the scores, with 0 < k <= n, but got shape "
            f"{tuple(candidates.shape)} in {candidates.dtype}."
        )
    if bool((candidates.amin() < 0) | (candidates.amax() >= n)):
        raise AssignmentError(
            f"Expected candidates between 0 and {n - 1} but got {int(candidates.min())} to {int(candidates.max())}."
        )


def best_pairs(
    values: Callable[[int, int], Tensor], n: int, k: int, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k largest values of each row, block by block.

    Memory stays O(nk) for any n.

    Args:
        values: first and last row to their values, shape (rows, n), which may be changed.
        n: number of rows and columns.
        k: how many.
        excluded: columns of each row that do not count, shape (n, e).

    Returns:
        The values, largest first, and their columns, shape (n, k).

    Example:
        >>> table = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 0.0, 9.0]])
        >>> best_pairs(lambda first, last: table[first:last].clone(), 3, 1, torch.arange(3)[:, None])[1].tolist()
        [[2], [2], [0]]
    """
    rows = max(1, BLOCK // n)
    found = []
    for first in range(0, n, rows):
        last = min(n, first + rows)
        block = values(first, last)
        if excluded is not None:
            block.scatter_(1, excluded[first:last].to(block.device), -torch.inf)
        found.append(block.topk(k, dim=1))
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])
