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
    masks = np.zeros(shape, dtype=bool) if math.prod(shape) < 1 << 16 else None
    shares = []
    for slot in slots:
        lengths = [shape[axis] for axis in slot.axes]
        flat = np.zeros(math.prod(lengths), dtype=bool)
        flat[slot.layout.table().ravel()] = True
        shares.append(flat.mean())
        if masks is not None:
            view = flat.reshape(lengths)
            masks |= np.expand_dims(view, [a for a in range(len(shape)) if a not in slot.axes])
    # Of large tensors the slots are taken as independent, which is exact when one of them covers its axis.
    share = masks.mean() if masks is not None else 1 - math.prod(1 - s for s in shares)
    return round(math.prod(shape) * float(share))
