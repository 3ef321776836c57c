"""The hard assignment: the permutation that maximises the total score."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sinkhorn_rebasin.assignment.scores import check_finite, check_scores

__all__ = ["hard_assignment"]


def hard_assignment(scores: Tensor) -> Tensor:
    r"""Find the permutation with the largest total score.

    .. math:: \pi = \arg\max_\pi \sum_i X_{i,\pi(i)}

    It is the limit of :func:`~sinkhorn_rebasin.assignment.sinkhorn` as the temperature goes to zero. No
    gradient flows through it; the indices live on the scores' device.

    Args:
        scores: Score matrices X, shape (..., n, n), any floating dtype and device.

    Returns:
        Column chosen by each row, shape (..., n), dtype long: a permutation of 0..n-1.

    Raises:
        AssignmentError: Scores that are not square, empty, not floating, or contain NaN or infinity.

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
    matrices = scores.detach().to(device="cpu", dtype=torch.float64).reshape(-1, n, n).numpy()
    columns = [linear_sum_assignment(matrix, maximize=True)[1] for matrix in matrices]
    indices = np.stack(columns) if columns else np.empty((0, n), dtype=np.int64)
    return torch.from_numpy(indices).to(device=scores.device, dtype=torch.long).reshape(scores.shape[:-1])
