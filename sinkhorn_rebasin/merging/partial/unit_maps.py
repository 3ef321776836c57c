"""Maps of units along the axes of tensors, where the number of units changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.permutations import Slot


def mapped(
    tensor: Tensor, slots: Sequence[Slot], matrices: Mapping[Slot, Tensor], share: Mapping[Slot, float]
) -> Tensor:
    """Map the units of all slots of a tensor.

    Slots on one axis that follow each other (joined channels, gates of a cell) are mapped one by one.

    Args:
        tensor: any tensor.
        slots: the slots on it.
        matrices: per slot (new units, units).
        share: per slot, what positions beside the units on its axis are multiplied by.

    Raises:
        ArchitectureError: units that do not lie in one run after the other, whose number would change.

    >>> from sinkhorn_rebasin.permutations import Layout
    >>> slot = Slot("a", "w", (0,), Layout(1, 2))
    >>> mapped(torch.tensor([1.0, 2.0, 5.0]), [slot], {slot: torch.ones(1, 2)}, {slot: 0.5}).tolist()
    [3.0, 2.5]
    """
    by_axes: dict[tuple[int, ...], list[Slot]] = {}
    for slot in slots:
        by_axes.setdefault(slot.axes, []).append(slot)
    for axes, on_axes in by_axes.items():
        tensor = _along(tensor, axes, on_axes, matrices, share[on_axes[0]])
    return tensor


def _along(
    tensor: Tensor,
    axes: tuple[int, ...],
    slots: Sequence[Slot],
    matrices: Mapping[Slot, Tensor],
    share: float,
) -> Tensor:
    inner = tuple(range(len(axes)))
    front = tensor.movedim(axes, inner)
    lengths = front.shape[: len(axes)]
    flat = front.reshape(math.prod(lengths), -1)
    parts, at = [], 0
    for start, slot, width in sorted(_runs(slots), key=lambda run: run[0]):
        if start < at:
            raise _not_in_runs(slot)
        matrix = matrices[slot].to(flat)
        size = matrix.shape[1]
        parts.append(flat[at:start] * share)
        units = flat[start : start + size * width].reshape(size, -1)
        parts.append((matrix @ units).reshape(len(matrix) * width, flat.shape[1]))
        at = start + size * width
    parts.append(flat[at:] * share)
    result = torch.cat(parts)
    if len(axes) > 1 and len(result) != len(flat):
        raise _not_in_runs(slots[0])
    new = lengths if len(axes) > 1 else (len(result),)
    return result.reshape(*new, *front.shape[len(axes) :]).movedim(inner, axes).contiguous()


def _runs(slots: Sequence[Slot]) -> list[tuple[int, Slot, int]]:
    """List where the runs of a slot start.

    With each comes how many positions a unit has in it.
    """
    runs = []
    for slot in slots:
        layout = slot.layout
        if (
            layout.listed is not None
            or layout.blocks > 1
            or (layout.size > 1 and layout.stride != layout.inner)
        ):
            raise _not_in_runs(slot)
        runs += [
            (layout.offset + part * layout.outer_stride, slot, layout.inner) for part in range(layout.outer)
        ]
    return runs


def _not_in_runs(slot: Slot) -> ArchitectureError:
    return ArchitectureError(
        f"Expected the units of group {slot.group!r} in whole runs along the axes {slot.axes} of {slot.tensor!r}, so "
        f"that their number can change, but they lie between others or on several axes: leave the group out with "
        f"spec.without({slot.group!r})."
    )
