"""Tensors of a network of merged units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_maps import mapped
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.permutations import Slot


@dataclass(frozen=True)
class Maps:
    """Hold how a group's units are merged.

    They are written by (new, 2d) and read by (2d, new).
    """

    writing: Tensor
    reading: Tensor

    @classmethod
    def of(cls, merge: UnitMerge) -> Maps:
        """Return the maps of clusters."""
        return cls(merge.merge_matrix(), merge.unmerge_matrix())

    def of_network(self, number: int, writes: bool) -> Tensor:
        """Return the map of one network's units, (new, d)."""
        units = self.writing.shape[1] // 2
        part = slice(number * units, (number + 1) * units)
        return self.writing[:, part] if writes else self.reading[part].mT


def merged_state(
    networks: TwoNetworks, maps: Mapping[str, Maps], shares: tuple[float, float] = (0.5, 0.5)
) -> State:
    r"""Merge the tensors of two networks.

    .. math:: W' = \sum_{n} M_n\, W_n\, U_n

    with the writing map of each group on the axes that write its units and the reading map on those that read them.
    What no group moves is the weighted mean, and the outputs of heads lie one after the other.

    Args:
        networks: both.
        maps: of every group.
        shares: weights of the mean.

    Returns:
        Tensors in the types of the reference; whole numbers are the reference's.
    """
    first, second = networks.states
    return {
        name: _merged(networks, name, (first[name], second[name]), maps, shares)
        if first[name].is_floating_point()
        else first[name].clone()
        for name in first
        if name in networks.spec.shapes
    }


def _merged(
    networks: TwoNetworks,
    name: str,
    tensors: tuple[Tensor, Tensor],
    maps: Mapping[str, Maps],
    shares: tuple[float, float],
) -> Tensor:
    wide = [tensor.detach().double() for tensor in tensors]
    slots = networks.spec.slots_on(name)
    return merged_parts(networks, wide, slots, maps, networks.heads.get(name), shares).to(tensors[0].dtype)


def merged_parts(
    networks: TwoNetworks,
    tensors: Sequence[Tensor],
    slots: Sequence[Slot],
    maps: Mapping[str, Maps],
    head: int | None,
    shares: tuple[float, float] = (0.5, 0.5),
    *,
    every_slot_writes: bool = False,
) -> Tensor:
    """Merge a tensor of both networks.

    It holds weights, or values of units.

    Args:
        networks: both.
        tensors: one of each network.
        slots: where units lie in them.
        maps: of every group.
        head: the axis along which both are kept, one after the other; None: they are added up.
        shares: weights of the mean of what no group moves.
        every_slot_writes: take means over units at every slot, as for values of units.
    """
    writes = {slot: every_slot_writes or networks.writes[slot] for slot in slots}
    parts = []
    for number, tensor in enumerate(tensors):
        matrices = {slot: maps[slot.group].of_network(number, writes[slot]) for slot in slots}
        beside = {slot: shares[number] if writes[slot] else 1.0 for slot in slots}
        part = mapped(tensor, slots, matrices, beside)
        parts.append(part if any(writes.values()) or head is not None else part * shares[number])
    return parts[0] + parts[1].to(parts[0].device) if head is None else torch.cat(parts, head)
