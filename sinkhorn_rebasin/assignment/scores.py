"""What a score matrix must be, checked in one place for the soft and the hard assignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError

__all__ = ["check_finite", "check_range", "check_scores"]


def check_scores(scores: Tensor) -> None:
    """Raise AssignmentError unless scores are square matrices.

    They must be floating tensors of shape (..., n, n) with n > 0.
    """
    if not isinstance(scores, Tensor):
        raise AssignmentError(f"Expected scores to be a torch.Tensor but got {type(scores).__name__}.")
    if not scores.is_floating_point():
        raise AssignmentError(
            f"Expected scores of a floating dtype but got {scores.dtype}; convert them with scores.float()."
        )
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise AssignmentError(
            f"Expected scores of square matrices, shape (..., n, n), but got shape {tuple(scores.shape)}."
        )
    if scores.shape[-1] == 0:
        raise AssignmentError(
            f"Expected scores of at least one row and column but got shape {tuple(scores.shape)}."
        )


def check_finite(scores: Tensor, name: str = "scores") -> None:
    """Raise AssignmentError at the first non-finite score.

    The error names the first NaN or infinite entry.
    """
    # one sum reads the tensor faster than isfinite().all(); it may overflow, so it only raises the suspicion
    if torch.isfinite(scores.sum()):
        return
    bad = ~torch.isfinite(scores)
    if not bad.any():
        return
    where = tuple(int(i) for i in bad.nonzero()[0])
    raise AssignmentError(
        f"Expected finite {name} but got {float(scores[where])} at index {where} "
        f"({int(bad.sum())} of {scores.numel()} entries are NaN or infinite)."
    )


def check_range(scores: Tensor, temperature: float) -> tuple[float, float]:
    """Raise AssignmentError unless X / τ stays in range.

    X must be finite, too. Returns the smallest and largest score.
    """
    low, high = float(scores.amin()), float(scores.amax())
    largest = max(-low, high)
    if not math.isfinite(high - low):
        check_finite(scores)
    limit = 0.01 * torch.finfo(scores.dtype).max
    if largest / temperature > limit or 1 / temperature > limit:
        raise AssignmentError(
            f"Expected scores / temperature within the range of {scores.dtype} but got scores up to "
            f"{largest:.3g} at temperature {temperature:g}; raise the temperature."
        )
    return low, high
