"""Metrics as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.connectivity.barrier import area_under_curve, barrier
from sinkhorn_rebasin.errors import DataError

__all__ = [
    "area_under_curve",
    "barrier",
    "permutation_agreement",
    "permutation_recovery",
    "relative_change",
]


def permutation_agreement(estimated: Permutations, truth: Permutations) -> dict[str, Tensor]:
    """Return each group's fraction of agreeing units.

    Unit i agrees where estimated(i) = truth(i).

    Args:
        estimated: group name to indices (..., n), or to a soft matrix (..., n, n) read by its largest entry
            in each row; leading dimensions are blocks of a nested group.
        truth: the same groups, of the same sizes.

    Returns:
        Group name to a 0-d tensor between 0 and 1.

    Raises:
        DataError: the groups or their sizes differ.

    Example:
        >>> agreement = permutation_agreement({"a": torch.tensor([1, 0, 2])}, {"a": torch.tensor([1, 2, 0])})
        >>> round(agreement["a"].item(), 3)
        0.333
    """
    pairs = _paired(estimated, truth)
    return {name: (first == second).double().mean().float() for name, (first, second) in pairs.items()}


def permutation_recovery(estimated: Permutations | Tensor, truth: Permutations | Tensor) -> Tensor:
    """Return the fraction of all units that agree.

    It is taken over all groups together. A unit agrees where its index is that of the truth.

    Args:
        estimated: indices (..., n) or a soft matrix (..., n, n), alone or by group name.
        truth: the planted permutation, in the same form.

    Returns:
        0-d tensor between 0 and 1; 1 when nothing is to be permuted.

    Raises:
        DataError: the groups or their sizes differ.

    Example:
        >>> permutation_recovery(torch.tensor([0, 2, 1, 3]), torch.tensor([0, 1, 2, 3])).item()
        0.5
    """
    agreeing, units = count_agreeing(estimated, truth)
    return torch.tensor(agreeing / units if units else 1.0)


def count_agreeing(estimated: Permutations | Tensor, truth: Permutations | Tensor) -> tuple[int, int]:
    """Count the units that agree, and all units.

    They are summed over all groups.

    Raises:
        DataError: the groups or their sizes differ.

    Example:
        >>> count_agreeing(torch.tensor([0, 2, 1, 3]), torch.tensor([0, 1, 2, 3]))
        (2, 4)
    """
    pairs = _paired(_by_group(estimated), _by_group(truth)).values()
    agreeing = sum(int((first == second).sum()) for first, second in pairs)
    return agreeing, sum(first.numel() for first, _ in pairs)


def relative_change(output: Tensor, other: Tensor) -> Tensor:
    """Return max|output − other| / max|output|.

    It tells how far a network's output moved, in units of its size.

    Args:
        output: any shape.
        other: the same shape.

    Returns:
        0-d tensor; 0 when both are all zero, infinite when only the first is, NaN where an entry is NaN.

    Raises:
        DataError: the shapes differ.

    Example:
        >>> round(relative_change(torch.tensor([1.0, -4.0]), torch.tensor([1.0, -3.0])).item(), 6)
        0.25
    """
    if output.shape != other.shape:
        raise DataError(
            f"Expected two outputs of one shape but got {tuple(output.shape)} and {tuple(other.shape)}."
        )
    if output.numel() == 0:
        return output.new_zeros(())
    change, size = (output - other).abs().amax(), output.abs().amax()
    return torch.where(change == 0, change, change / size)


def _by_group(permutations: Permutations | Tensor) -> Permutations:
    return {"permutation": permutations} if isinstance(permutations, Tensor) else permutations


def _indices(permutation: Tensor) -> Tensor:
    # Row i of the matrix says where the new unit i comes from, as does entry i of the index vector.
    return permutation.argmax(dim=-1) if permutation.is_floating_point() else permutation


def _paired(estimated: Permutations, truth: Permutations) -> dict[str, tuple[Tensor, Tensor]]:
    if set(estimated) != set(truth):
        raise DataError(f"Expected the groups {sorted(truth)} but got {sorted(estimated)}.")
    pairs = {}
    for name in truth:
        first, second = _indices(estimated[name]), _indices(truth[name])
        if first.shape != second.shape:
            raise DataError(
                f"Expected indices of shape {tuple(second.shape)} for the group {name!r}"
                f" but got {tuple(first.shape)}."
            )
        pairs[name] = (first, second.to(first.device))
    return pairs
