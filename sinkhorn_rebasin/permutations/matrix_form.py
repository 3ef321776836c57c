"""Tensors on which soft permutations act by products from two sides, laid out so that no product copies them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.slots import Slot


def has_two_sides(shape: Sequence[int], slots: Sequence[Slot]) -> bool:
    """Tell whether two matrices move all of a tensor.

    Each slot must fill axes of its own with the units of one block.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> rows, columns = (Slot("a", "w", (axis,), Layout(1, 3)) for axis in (0, 1))
    >>> has_two_sides((3, 3), (rows, columns)), has_two_sides((4, 3), (rows, columns))
    (True, False)
    """
    if len(slots) != 2 or set(slots[0].axes) & set(slots[1].axes):
        return False
    return all(
        slot.layout.blocks == 1
        and slot.layout.size * slot.layout.width == math.prod(shape[axis] for axis in slot.axes)
        for slot in slots
    )


def between(tensor: Tensor, front: Slot, back: Slot) -> Tensor:
    """Lay out a tensor with one group first and one last.

    A matrix of either group then acts by one product of contiguous memory. A linear layer's weight is not copied.

    Args:
        tensor: on which the slots are; axes behind those of the spec may follow.
        front, back: the slots; see :func:`has_two_sides`.

    Returns:
        (n, k, m), with k places for each pair of units.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> rows, columns = (Slot("a", "w", (axis,), Layout(1, 2)) for axis in (0, 1))
    >>> between(torch.arange(8).reshape(2, 2, 2), rows, columns).tolist()
    [[[0, 2], [1, 3]], [[4, 6], [5, 7]]]
    """
    others = [axis for axis in range(tensor.dim()) if axis not in (*front.axes, *back.axes)]
    length = math.prod(tensor.shape[axis] for axis in back.axes)
    ordered = tensor.permute(*front.axes, *others, *back.axes)
    size = front.layout.size
    rows = ordered.reshape(size * front.layout.width, -1)
    if not front.layout.is_whole_axis(len(rows)):
        rows = rows[torch.from_numpy(front.layout.table()).reshape(-1).to(rows.device)]
    columns = rows.reshape(size, -1, length)
    if back.layout.width > 1 or not back.layout.is_whole_axis(length):
        table = torch.from_numpy(back.layout.table())[0].T.to(rows.device)
        columns = columns[:, :, table].reshape(size, -1, back.layout.size)
    return columns.contiguous()
