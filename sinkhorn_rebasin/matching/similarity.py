"""How alike the units of two networks are: inner products of everything they own."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.matching.invariants import seen_through
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Group, PermutationSpec, Slot


def unit_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    permutations: dict[str, Tensor],
    unknown: Collection[str] = (),
) -> Tensor:
    """Inner products of a group's units, (blocks, size, size) in float64: reference units by target units.

    Each slot is read from the target with ``permutations`` applied to every other slot, but those of ``unknown``
    groups, of which only what their order cannot change counts.
    """
    total = torch.zeros(group.blocks, group.size, group.size, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(group.name):
        if slot.tensor not in spec.parameters:
            continue
        others = tuple(other for other in spec.slots_on(slot.tensor) if other != slot)
        pair = seen_through(others, reference[slot.tensor], target[slot.tensor], permutations, unknown)
        ours, theirs = (units_of(tensor, slot) for tensor in pair)
        total += torch.bmm(ours, theirs.mT).double().cpu()
    return total


def units_of(tensor: Tensor, slot: Slot) -> Tensor:
    """Everything each unit of a slot owns in a tensor, (blocks, size, elements), real and not in half precision."""
    layout = slot.layout
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(math.prod(front.shape[: len(slot.axes)]), -1)
    if not layout.is_whole_axis(len(flat)):
        flat = flat[torch.from_numpy(layout.table()).reshape(-1).to(tensor.device)]
    units = real_view(flat.reshape(layout.blocks, layout.size, -1)).flatten(2)
    return units if units.dtype == torch.float64 else units.float()
