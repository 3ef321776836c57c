"""How much of a network can be permuted."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sinkhorn_rebasin.permutations.spec import PermutationSpec


def covered_share(spec: PermutationSpec, groups: Collection[str] | None = None) -> float:
    """Share of parameter elements that lie on at least one position of these groups (all of them: None)."""
    total = sum(math.prod(spec.shapes[name]) for name in spec.parameters)
    tensors = (
        spec.shapes if groups is None else {slot.tensor for name in groups for slot in spec.slots_of(name)}
    )
    covered = sum(_covered(spec, name, groups) for name in tensors if name in spec.parameters)
    return covered / total if total else 0.0


def _covered(spec: PermutationSpec, name: str, groups: Collection[str] | None) -> int:
    slots = [slot for slot in spec.slots_on(name) if groups is None or slot.group in groups]
    shape = spec.shapes[name]
    if not slots or not math.prod(shape):
        return 0
    masks: dict[tuple[int, ...], np.ndarray] = {}
    for slot in slots:
        length = math.prod(shape[axis] for axis in slot.axes)
        masks.setdefault(slot.axes, np.zeros(length, dtype=bool))[slot.layout.table().ravel()] = True
    if any(mask.all() for mask in masks.values()):
        return math.prod(shape)
    moved = np.zeros(shape, dtype=bool)
    for axes, mask in masks.items():
        view = mask.reshape([shape[axis] for axis in axes])
        moved |= np.expand_dims(view, [axis for axis in range(len(shape)) if axis not in axes])
    return int(moved.sum())
