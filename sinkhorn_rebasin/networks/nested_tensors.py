"""Comparing what networks return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.networks.structures import tensors_in as tensors_in

MOST_ROUNDINGS = 64
"""A difference of no more last places than these is rounding, however little the output varies."""
LEAST_VARIATION = 4.0
"""An output varies where it does so by more than this many times what its type resolves."""


def largest_change(before: Any, after: Any, others: Sequence[Any] | None = None) -> float:
    """Return the largest relative difference of two outputs.

    It is taken over the largest value of the first. NaN counts as infinite. Outputs of other shapes, or of another
    number of tensors, differ infinitely.

    Args:
        before, after: two outputs of a network.
        others: its outputs at weights that compute something else. The difference is then measured by how much the
            output varies with them and from sample to sample, so that a large constant does not hide it; except for
            a difference that the type of the output does not resolve.

    >>> energies = 1e6 + torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> round(largest_change(energies, energies + 0.1), 9), round(largest_change(energies, energies + 0.1, []), 9)
    (1e-07, 0.1)
    """
    ours, theirs = tensors_in(before), tensors_in(after)
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return float("inf")
    varied = None if others is None else [tensors_in(other) for other in others]
    changes = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        found = None if varied is None else [each[number] for each in varied if len(each) == len(ours)]
        changes.append(_change(one, other, found))
    return max(changes, default=0.0)


def _change(one: Tensor, other: Tensor, varied: Sequence[Tensor] | None) -> float:
    if one.numel() == 0:
        return 0.0
    rounding = torch.finfo(one.dtype).eps if one.is_floating_point() or one.is_complex() else 0.0
    one, other = _wide(one), _wide(other).to(one.device)
    difference = _largest_difference(one, other)
    scale = float(one[one.isfinite()].abs().max()) if bool(one.isfinite().any()) else 1.0
    if varied is not None and difference > MOST_ROUNDINGS * rounding * scale:
        sizes = [_largest_difference(one, _wide(tensor).to(one.device)) for tensor in varied]
        sizes += [_largest_difference(one, one[:1].expand_as(one))] if one.dim() else []
        scale = min([scale, *(size for size in sizes if LEAST_VARIATION * rounding * scale < size)])
    value = difference / max(scale, torch.finfo(torch.float64).tiny)
    return value if value == value else float("inf")


def _largest_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors.

    It is infinite where only one of them is, and zero where the shapes differ.
    """
    if one.shape != other.shape:
        return 0.0
    same = (one == other) | (one.isnan() & other.isnan())
    return float(torch.where(same, 0.0, (one - other).abs()).max())


def _wide(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dense = dense.dequantize() if dense.is_quantized else dense
    return dense.detach().to(torch.complex128 if dense.is_complex() else torch.float64)
