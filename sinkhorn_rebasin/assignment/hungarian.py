"""The hard assignment: the permutation that maximises the total score."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sinkhorn_rebasin.assignment.scores import check_finite, check_scores
from sinkhorn_rebasin.assignment.sparse.wide_hungarian import wide_assignment
from sinkhorn_rebasin.errors import AssignmentError

__all__ = ["hard_assignment"]


WIDE = 256
"""Size from which potentials pay; smaller matrices are solved as they are."""

VERY_WIDE = 8192
"""Size from which matrices in single precision are solved row by row, for SciPy copies them in double precision."""


def hard_assignment(scores: Tensor, potentials: Tensor | None = None) -> Tensor:
    r"""Find the permutation with the largest total score.

    .. math:: \pi = \arg\max_\pi \sum_i X_{i,\pi(i)}

    It is the limit of :func:`~sinkhorn_rebasin.assignment.sinkhorn` as the temperature goes to zero. No
    gradient flows through it; the indices live on the scores' device.

    A constant per column changes no optimum,

    .. math:: \sum_i (X_{i,\pi(i)} + y_{\pi(i)}) = \sum_i X_{i,\pi(i)} + \sum_j y_j,

    but it decides how long the search takes. From n = 256 on, the potentials given are added, and without any the
    mean of each column is taken off. Units of large norm then draw no more rows than others.

    Args:
        scores: Score matrices X, shape (..., n, n), any floating dtype and device.
        potentials: y, shape (..., n), such as those of a soft assignment of the same scores; any other is slower
            and as right.

    Returns:
        Column chosen by each row, shape (..., n), dtype long: a permutation of 0..n-1.

    Raises:
        AssignmentError: Scores that are not square, empty, not floating, or contain NaN or infinity; potentials of
            another shape or not finite.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.9, 0.8, 0.0], [0.9, 0.1, 0.0], [0.0, 0.7, 0.6]])
        >>> indices = hard_assignment(scores)
        >>> indices
        tensor([1, 0, 2])
        >>> from itertools import permutations
        >>> best = max(scores[range(3), list(p)].sum() for p in permutations(range(3)))
        >>> bool(scores[range(3), indices].sum() == best)
        True

    Source:
        H. W. Kuhn, The Hungarian method for the assignment problem (1955); D. F. Crouse (2016) for the
        shortest augmenting path algorithm behind :func:`scipy.optimize.linear_sum_assignment`.
    """
    check_scores(scores)
    check_finite(scores.detach())
    n = scores.shape[-1]
    # float64 represents every value of the narrower dtypes exactly
    matrices = scores.detach().to(device="cpu").reshape(-1, n, n)
    columns = [
        _columns(matrix, shift)
        for matrix, shift in zip(matrices, _shifts(matrices, potentials, scores), strict=True)
    ]
    indices = np.stack(columns) if columns else np.empty((0, n), dtype=np.int64)
    return torch.from_numpy(indices).to(device=scores.device, dtype=torch.long).reshape(scores.shape[:-1])


def _columns(matrix: Tensor, shift: Tensor | None) -> NDArray[np.int64]:
    """Find the best permutation of one matrix.

    Where every row has its largest score in a column of its own, none can be better.
    """
    largest = matrix.argmax(-1).numpy()
    if len(np.unique(largest)) == len(largest):
        return np.asarray(largest)
    if len(matrix) >= VERY_WIDE and matrix.dtype != torch.float64:
        return wide_assignment(matrix.float(), shift).numpy()
    return np.asarray(linear_sum_assignment(_costs(matrix, shift).numpy())[1])


def _costs(matrix: Tensor, shift: Tensor | None) -> Tensor:
    """Negate a matrix in double precision, one copy in all; SciPy makes one more where it maximises."""
    costs = matrix.to(torch.float64, copy=True).neg_()
    if len(matrix) < WIDE:
        return costs
    return costs.sub_(costs.mean(0) if shift is None else shift)


def _shifts(matrices: Tensor, potentials: Tensor | None, scores: Tensor) -> list[Tensor | None]:
    """Return the potentials of each matrix."""
    if potentials is None:
        return [None] * len(matrices)
    if potentials.shape != scores.shape[:-1]:
        raise AssignmentError(
            f"Expected potentials of shape {tuple(scores.shape[:-1])}, one a column, but got shape "
            f"{tuple(potentials.shape)}."
        )
    check_finite(potentials.detach(), "potentials")
    return list(potentials.detach().to(device="cpu", dtype=torch.float64).reshape(-1, scores.shape[-1]))
