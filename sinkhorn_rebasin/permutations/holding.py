"""Which units some tensors do not tell apart: those that may change places while the tensors stay as they are."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.slots import Group, Slot
from sinkhorn_rebasin.permutations.structure import SpecStructure


def parted_group(
    spec: SpecStructure, group: Group, state: StateLike, held: Collection[str]
) -> tuple[list[Group], list[Slot]]:
    """Part a group by what held tensors distinguish.

    Units belong to one part where the held tensors have equal numbers for them. Alone in its part, a unit stays. So
    do all units of a group of blocks, or that holds groups, where any two differ.

    Args:
        spec: the symmetries.
        group: one of its groups.
        state: the held tensors by name.
        held: their names.

    Returns:
        The parts and their slots; the group itself where its units do not differ.

    Example:
        >>> import torch
        >>> slots = Slot("a", "w", (0,), Layout(1, 4)), Slot("a", "mask", (1,), Layout(1, 4))
        >>> spec = SpecStructure((Group("a", 4),), slots, {"w": (4, 2), "mask": (1, 4)})
        >>> parts, slots = parted_group(spec, spec["a"], {"mask": torch.tensor([[0, 1, 0, 2]])}, ["mask"])
        >>> parts, slots[0].layout.table().ravel().tolist()
        ([Group(name='a:0', size=2, blocks=1, parent=None)], [0, 2])
    """
    slots = spec.slots_of(group.name)
    rows = [_rows(slot, state[slot.tensor]) for slot in slots if slot.tensor in held]
    kinds = _kinds(np.concatenate(rows, axis=2)) if rows else np.zeros((group.blocks, group.size), dtype=int)
    if (kinds == kinds[:, :1]).all():
        return [group], list(slots)
    if group.blocks > 1 or group.parent is not None or spec.children(group.name):
        return [], []
    groups: list[Group] = []
    parts: list[Slot] = []
    for kind in np.unique(kinds):
        units = np.flatnonzero(kinds[0] == kind)
        if len(units) > 1:
            part = replace(group, name=f"{group.name}:{len(groups)}", size=len(units))
            groups.append(part)
            parts += [
                replace(s, group=part.name, layout=Layout.from_table(s.layout.table()[:, units]))
                for s in slots
            ]
    return groups, parts


def _rows(slot: Slot, tensor: Tensor) -> NDArray[np.complex128]:
    """Return the numbers at each unit's positions, (blocks, size, numbers)."""
    values = tensor.detach().cpu()
    values = values if values.is_complex() else values.double()  # NumPy knows no bfloat16
    rest = [axis for axis in range(values.ndim) if axis not in slot.axes]
    length = math.prod(values.shape[axis] for axis in slot.axes)
    numbers = values.permute(*slot.axes, *rest).reshape(length, -1).numpy()
    return (
        numbers[slot.layout.table()].reshape(slot.layout.blocks, slot.layout.size, -1).astype(np.complex128)
    )


def _kinds(rows: NDArray[np.complex128]) -> NDArray[np.int64]:
    """Number units by their rows: equal numbers for equal rows, (blocks, size).

    >>> _kinds(np.array([[[1.0 + 0j], [2.0 + 0j], [1.0 + 0j]]])).tolist()
    [[0, 1, 0]]
    """
    flat = rows.reshape(-1, rows.shape[2])
    inverse = np.unique(flat, axis=0, return_inverse=True)[1]
    return inverse.reshape(rows.shape[:2])
