"""Build a spec from slots: names, order, ties, frozen axes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations.spec import Frozen, Group, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.validity import Validity, digest_of
from sinkhorn_rebasin.symmetry.solving.frozen_axes import frozen_axes
from sinkhorn_rebasin.symmetry.solving.slot_tables import FoundSlot
from sinkhorn_rebasin.symmetry.solving.solver import Solution
from sinkhorn_rebasin.symmetry.tracing.tape import Tape


def assembled(
    named: State,
    buffers: frozenset[str],
    tape: Tape,
    solution: Solution,
    slots_found: list[FoundSlot],
    validity: Validity,
) -> PermutationSpec:
    """Build a spec, in the order of ``named``."""
    aliases: dict[int, list[str]] = {}
    for name, tensor in named.items():
        aliases.setdefault(id(tensor), []).append(name)
    order = {name: place for place, name in enumerate(named)}
    first = _first_slots(order, slots_found)
    names = _group_names(first)
    groups = tuple(
        Group(names[i], solution.groups[i].size, solution.groups[i].blocks, _valid_parent(solution, names, i))
        for i in _parents_first(solution, names)
    )
    number = {group.name: place for place, group in enumerate(groups)}
    slots = [
        Slot(names[slot.group], alias, slot.axes, slot.layout)
        for slot in slots_found
        for alias in aliases[id(named[slot.tensor])]
    ]
    slots.sort(key=lambda slot: (order[slot.tensor], slot.axes, number[slot.group], slot.layout.offset))
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    frozen: tuple[Frozen, ...] = frozen_axes(named, tape, slots)
    tied = tuple(tuple(names) for names in aliases.values() if len(names) > 1)
    constants = {name: digest_of(tensor) for name, tensor in sorted(tape.integers.read.items())}
    return PermutationSpec(groups, tuple(slots), shapes, frozen, buffers, tied, constants, validity)


def _valid_parent(solution: Solution, names: Mapping[int, str], group: int) -> str | None:
    """Find the nearest ancestor that has a name."""
    parent = solution.groups[group].parent
    while parent >= 0 and parent not in names:
        parent = solution.groups[parent].parent
    return names.get(parent)


def _first_slots(order: Mapping[str, int], slots: list[FoundSlot]) -> dict[int, str]:
    """Find the first tensor of each group, in order.

    Note:
        The solver's order changes with the length of inputs. The state dict's order does not.
    """
    first: dict[int, str] = {}
    for slot in sorted(slots, key=lambda slot: (order[slot.tensor], slot.axes, _extent(slot))):
        first.setdefault(slot.group, slot.tensor)
    return first


def _extent(slot: FoundSlot) -> tuple[int, ...]:
    """Return what tells groups on one axis apart."""
    layout = slot.layout
    return layout.offset, layout.blocks, layout.size, layout.width


def _parents_first(solution: Solution, names: Mapping[int, str]) -> list[int]:
    """Order groups so that each stands behind its parents."""
    ordered: dict[int, None] = {}
    for group in names:
        line = [group]
        while (parent := solution.groups[line[-1]].parent) >= 0:
            line.append(parent)
        ordered.update(dict.fromkeys(one for one in reversed(line) if one in names))
    return list(ordered)


def _group_names(first: Mapping[int, str]) -> dict[int, str]:
    """Name groups after their first module."""
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
