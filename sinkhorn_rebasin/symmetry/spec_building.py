"""From the slots that discovery found to a spec: names, order, ties and what is frozen."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations.spec import Frozen, Group, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.validity import digest_of
from sinkhorn_rebasin.symmetry.solving.frozen_axes import frozen_axes
from sinkhorn_rebasin.symmetry.solving.slot_tables import FoundSlot
from sinkhorn_rebasin.symmetry.solving.solver import Solution
from sinkhorn_rebasin.symmetry.tracing.tape import Tape


def assembled(
    named: State, buffers: frozenset[str], tape: Tape, solution: Solution, found: list[FoundSlot]
) -> PermutationSpec:
    """The spec of these slots: its groups and slots stand in the order of the tensors in ``named``."""
    aliases: dict[int, list[str]] = {}
    for name, tensor in named.items():
        aliases.setdefault(id(tensor), []).append(name)
    order = {name: place for place, name in enumerate(named)}
    first = _first_slots(order, found)
    names = _group_names(first)
    groups = tuple(
        Group(names[i], solution.groups[i].size, solution.groups[i].blocks, _valid_parent(solution, names, i))
        for i in _parents_first(solution, names)
    )
    number = {group.name: place for place, group in enumerate(groups)}
    slots = [
        Slot(names[slot.group], alias, slot.axes, slot.layout)
        for slot in found
        for alias in aliases[id(named[slot.tensor])]
    ]
    slots.sort(key=lambda slot: (order[slot.tensor], slot.axes, number[slot.group], slot.layout.offset))
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    frozen: tuple[Frozen, ...] = frozen_axes(named, tape, slots)
    tied = tuple(tuple(names) for names in aliases.values() if len(names) > 1)
    constants = {name: digest_of(tensor) for name, tensor in sorted(tape.integers.read.items())}
    return PermutationSpec(groups, tuple(slots), shapes, frozen, buffers, tied, constants)


def _valid_parent(solution: Solution, names: Mapping[int, str], group: int) -> str | None:
    parent = solution.groups[group].parent
    while parent >= 0 and parent not in names:
        parent = solution.groups[parent].parent
    return names.get(parent)


def _first_slots(order: Mapping[str, int], found: list[FoundSlot]) -> dict[int, str]:
    """The tensor on which each group shows up first, groups in the order in which they do.

    The solver numbers groups by what it meets first, which changes with the length of the inputs; the places of
    tensors in the state dict do not.
    """
    first: dict[int, str] = {}
    for slot in sorted(found, key=lambda slot: (order[slot.tensor], slot.axes, _extent(slot))):
        first.setdefault(slot.group, slot.tensor)
    return first


def _extent(slot: FoundSlot) -> tuple[int, ...]:
    """What tells apart the groups on one axis: where each begins, and how many units it has."""
    layout = slot.layout
    return layout.offset, layout.blocks, layout.size, layout.width


def _parents_first(solution: Solution, names: Mapping[int, str]) -> list[int]:
    """The groups in their order, each behind its parents."""
    ordered: dict[int, None] = {}
    for group in names:
        line = [group]
        while (parent := solution.groups[line[-1]].parent) >= 0:
            line.append(parent)
        ordered.update(dict.fromkeys(one for one in reversed(line) if one in names))
    return list(ordered)


def _group_names(first: Mapping[int, str]) -> dict[int, str]:
    """Each group is called after the module that holds the first tensor it shows up in."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for group, tensor in first.items():
        path = tensor.rpartition(".")[0] or tensor
        # Groups name parameters in a ParameterDict, which allows no dots.
        base = name = path.replace(".", "/")
        count = 1
        while name in taken or hasattr(nn.ParameterDict, name):
            count += 1
            name = f"{base}#{count}"
        names[group] = name
        taken.add(name)
    return names
