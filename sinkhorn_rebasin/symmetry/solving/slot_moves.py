"""Check that slots carry units to where the units go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Hashes, Ids
from sinkhorn_rebasin.symmetry.solving.slot_tables import FoundSlot

# Per group, (blocks, size): the place in its block that each unit's new content comes from.
Moves = dict[int, Ids]


class SlotMoves:
    """Hold tensor entries that move, with their slots."""

    def __init__(
        self, parameter_labels: Mapping[str, Labels], slots: Sequence[FoundSlot], moving: NDArray[np.bool_]
    ) -> None:
        on: dict[str, list[FoundSlot]] = {}
        for slot in sorted(slots, key=lambda slot: -slot.group):  # parents have lower numbers, and act later
            on.setdefault(slot.tensor, []).append(slot)
        none = np.empty(0, dtype=np.int64)
        still = [none]
        self._moved: list[tuple[Ids, list[tuple[FoundSlot, tuple[int, ...]]]]] = []
        for name, labels in parameter_labels.items():
            for factor in labels.factors:
                near = [slot for slot in on.get(name, []) if not set(slot.axes).isdisjoint(factor.axes)]
                if not near:
                    still.append(factor.ids.ravel())
                    continue
                axes = tuple(sorted({*factor.axes}.union(*(slot.axes for slot in near))))
                places = [tuple(axes.index(axis) for axis in slot.axes) for slot in near]
                self._moved.append((factor.over(axes, labels.shape), list(zip(near, places, strict=True))))
        unmoved = np.concatenate(still)
        self._lost = bool(moving[unmoved[unmoved >= 0]].any())
        old = np.concatenate([none, *(ids.ravel() for ids, _ in self._moved)])
        units = old >= 0
        self._units, self._values = np.flatnonzero(units), np.flatnonzero(~units)
        self._old, self._old_values = old[self._units], old[self._values]
        self._orders: dict[tuple[int, int, int | Layout], Ids] = {}

    def agree(self, moves: Moves, before: Hashes, after: Hashes) -> bool:
        """Tell whether each unit lies where its image lay.

        ``before`` and ``after`` are hashes of every unit.
        """
        if self._lost:
            return False
        if not self._moved:
            return True
        self._orders.clear()
        new = np.concatenate([self._permuted(ids, slots, moves).ravel() for ids, slots in self._moved])
        units = new[self._units]
        if units.min(initial=0) < 0 or not np.array_equal(new[self._values], self._old_values):
            return False
        return np.array_equal(before[units], after[self._old])

    def _permuted(self, ids: Ids, slots: Sequence[tuple[FoundSlot, tuple[int, ...]]], moves: Moves) -> Ids:
        """Permute an array along the slots on it."""
        for slot, axes in slots:
            order = self._order(slot, math.prod(ids.shape[axis] for axis in axes), moves)
            if len(axes) == 1:
                ids = ids.take(order, axis=axes[0])
            else:
                front = np.moveaxis(ids, axes, range(len(axes)))
                flat = front.reshape(len(order), -1)[order].reshape(front.shape)
                ids = np.moveaxis(flat, range(len(axes)), axes)
        return ids

    def _order(self, slot: FoundSlot, length: int, moves: Moves) -> Ids:
        """Find the source of each position along a slot."""
        layout = slot.layout
        key = (slot.group, length, layout if layout.listed is None else id(layout))
        if key not in self._orders:
            table = layout.table()
            order = np.arange(length)
            order[table] = np.take_along_axis(table, moves[slot.group][:, :, None], axis=1)
            self._orders[key] = order
        return self._orders[key]
