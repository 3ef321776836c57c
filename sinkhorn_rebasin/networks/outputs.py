"""The tensors in what networks take and return, and comparing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

MOST_ROUNDINGS = 64
"""A difference of no more last places than these is rounding, however little the output varies."""
LEAST_VARIATION = 4.0
"""An output varies where it does so by more than this many times what its type resolves."""


def tensors_in(structure: Any) -> list[Tensor]:
    """Every tensor in a structure: containers of any kind, dataclasses and the attributes of other objects.

    >>> @dataclasses.dataclass
    ... class Output:
    ...     logits: Tensor
    ...     hidden: list[Tensor]
    >>> len(tensors_in((None, Output(torch.ones(2), [torch.ones(1)]), "text")))
    2
    """
    found: list[Tensor] = []
    seen: set[int] = set()
    waiting = [structure]
    while waiting:
        inside = []
        for leaf in tree_leaves(waiting.pop()):
            if isinstance(leaf, Tensor):
                found.append(leaf)
            elif id(leaf) not in seen:
                seen.add(id(leaf))
                inside.append(attributes_of(leaf))
        waiting.extend(part for part in reversed(inside) if part)
    return found


def attributes_of(leaf: Any) -> list[Any]:
    """What an object that is no container known to PyTorch holds; nothing for networks, types and functions."""
    if isinstance(leaf, (nn.Module, type, FunctionType, ModuleType)):
        return []
    if isinstance(leaf, (set, frozenset)):
        return list(leaf)
    if dataclasses.is_dataclass(leaf):
        return [getattr(leaf, field.name, None) for field in dataclasses.fields(leaf)]
    slots = [name for kind in type(leaf).__mro__ for name in _slots_of(kind)]
    return [*getattr(leaf, "__dict__", {}).values(), *(getattr(leaf, name, None) for name in slots)]


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ()) if "torch" not in kind.__module__.split(".") else ()
    return (slots,) if isinstance(slots, str) else tuple(slots)


def largest_change(before: Any, after: Any, others: Sequence[Any] | None = None) -> float:
    """Largest difference between two outputs over the largest value of the first; NaN counts as infinite.

    Outputs of other shapes, or of another number of tensors, differ infinitely.

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
    """Largest difference, infinite where only one of them is; none where the shapes are not the same."""
    if one.shape != other.shape:
        return 0.0
    same = (one == other) | (one.isnan() & other.isnan())
    return float(torch.where(same, 0.0, (one - other).abs()).max())


def _wide(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dense = dense.dequantize() if dense.is_quantized else dense
    return dense.detach().to(torch.complex128 if dense.is_complex() else torch.float64)
