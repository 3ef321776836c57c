"""The tensors in what networks take and return, and comparing them."""

from __future__ import annotations

import dataclasses
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


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


def largest_change(before: Any, after: Any) -> float:
    """Largest difference between two outputs over the largest value of the first; NaN counts as infinite.

    Outputs of other shapes, or of another number of tensors, differ infinitely.
    """
    ours, theirs = tensors_in(before), tensors_in(after)
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return float("inf")
    return max((_change(one, other) for one, other in zip(ours, theirs, strict=True)), default=0.0)


def _change(one: Tensor, other: Tensor) -> float:
    if one.numel() == 0:
        return 0.0
    one, other = _wide(one), _wide(other).to(one.device)
    same = (one == other) | (one.isnan() & other.isnan())
    difference = torch.where(same, 0.0, (one - other).abs()).max()
    scale = one[one.isfinite()].abs().max() if bool(one.isfinite().any()) else difference.new_ones(())
    value = float(difference / scale.clamp_min(torch.finfo(torch.float64).tiny))
    return value if value == value else float("inf")


def _wide(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dense = dense.dequantize() if dense.is_quantized else dense
    return dense.detach().to(torch.complex128 if dense.is_complex() else torch.float64)
