"""The entries that belong to each unit of a slot, read and written."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec


def unit_rows(tensor: Tensor, slot: Slot) -> Tensor:
    """List the entries of each unit.

    They are (blocks, size, entries).

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> unit_rows(torch.eye(2), Slot("a", "w", (1,), Layout(1, 2))).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    flat = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    length = math.prod(tensor.shape[axis] for axis in slot.axes)
    table = torch.from_numpy(slot.layout.table()).to(tensor.device)
    return flat.reshape(length, -1)[table].flatten(2)


def scaled_units(tensor: Tensor, slot: Slot, factor: float) -> Tensor:
    """A copy in which every entry of the slot's units is multiplied by one factor.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> scaled_units(torch.ones(3), Slot("a", "b", (0,), Layout(1, 2)), 2.0).tolist()
    [2.0, 2.0, 1.0]
    """
    return tensor * filled(torch.ones_like(tensor), slot, factor)


def filled(tensor: Tensor, slot: Slot, value: float) -> Tensor:
    """Copy a tensor with one value for units.

    Every entry of the slot's units has it.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> filled(torch.ones(3), Slot("a", "b", (0,), Layout(1, 2)), 0.0).tolist()
    [0.0, 0.0, 1.0]
    """
    sizes = [tensor.shape[axis] for axis in slot.axes]
    positions = torch.from_numpy(slot.layout.table()).reshape(-1).to(tensor.device)
    flat = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    shape = flat.shape
    flat = flat.reshape(math.prod(sizes), *shape[len(sizes) :]).index_fill(0, positions, value)
    return flat.reshape(shape).movedim(tuple(range(len(sizes))), slot.axes).contiguous()


def with_ties(state: StateLike, spec: PermutationSpec) -> State:
    """Restore ties by each tied tensor's first name.

    Every name gets what the first name holds.
    """
    first = {name: names[0] for names in spec.tied for name in names if names[0] in state}
    return {name: state[first.get(name, name)] for name in state}
