"""The data of a permutation specification: groups, slots and both directions between them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot
from sinkhorn_rebasin.permutations.validity import Validity

AxesToPerm: TypeAlias = Mapping[str, Sequence[str | None]]
"""Tensor name to the name of a permutation, or None, of each axis."""


@dataclass(frozen=True)
class SpecStructure:
    """Hold groups, their slots, and what is frozen.

    All of it is checked when the structure is made. Parents come before their nested groups. ``tied`` are the names
    that share one tensor. ``ignored`` are tensors that each network keeps for itself.

    >>> structure = SpecStructure((Group("heads", 2), Group("inside", 3, 2, "heads"), Group("other", 5)), (), {})
    >>> structure.ancestors("inside"), [group.name for group in structure.children("heads")]
    (('heads',), ['inside'])
    """

    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    shapes: Mapping[str, tuple[int, ...]]
    frozen: tuple[Frozen, ...] = ()
    buffers: frozenset[str] = frozenset()
    tied: tuple[tuple[str, ...], ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    validity: Validity | None = field(default=None, compare=False)
    ignored: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        known: set[str] = set()
        for group in self.groups:
            if group.name in known:
                raise SpecError(f"Expected distinct group names but got {group.name!r} twice.")
            if group.parent is not None and group.parent not in known:
                raise SpecError(
                    f"Expected the parent {group.parent!r} of group {group.name!r} to come before it but got "
                    f"the groups {sorted(known)} before it."
                )
            if group.parent is not None and group.blocks % self[group.parent].units:
                raise SpecError(
                    f"Expected group {group.name!r} to have as many blocks in each of the "
                    f"{self[group.parent].units} units of its parent {group.parent!r} but got {group.blocks}."
                )
            known.add(group.name)
        for slot in self.slots:
            self._check_slot(slot, known)

    def _check_slot(self, slot: Slot, known: set[str]) -> None:
        if slot.group not in known or slot.tensor not in self.shapes:
            raise SpecError(
                f"Expected a slot to name a group and a tensor of the spec but got group {slot.group!r}, "
                f"tensor {slot.tensor!r}."
            )
        group, shape = self[slot.group], self.shapes[slot.tensor]
        if not slot.axes or not set(slot.axes) <= set(range(len(shape))):
            raise SpecError(
                f"Expected the slot of group {slot.group!r} to name axes of tensor {slot.tensor!r}, which has shape "
                f"{tuple(shape)}, but got axes {slot.axes}."
            )
        length = math.prod(shape[axis] for axis in slot.axes)
        fits = (slot.layout.blocks, slot.layout.size) == (group.blocks, group.size)
        if not fits or not slot.layout.places_apart(length):
            raise SpecError(
                f"Expected the slot of group {slot.group!r} on tensor {slot.tensor!r}, axes {slot.axes}, to place "
                f"{group.blocks} x {group.size} units on distinct positions below {length} but got {slot.layout}."
            )

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def __getitem__(self, name: str) -> Group:
        try:
            return self._by_name[name]
        except KeyError:
            raise SpecError(f"Expected one of the groups {self.names} but got {name!r}.") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __hash__(self) -> int:
        return hash((self.groups, self.slots))

    @property
    def names(self) -> list[str]:
        """List the names of the groups, parents first."""
        return [group.name for group in self.groups]

    def slots_of(self, name: str) -> tuple[Slot, ...]:
        """List every slot of a group."""
        return self._slots_of[self[name].name]

    def slots_on(self, tensor: str) -> tuple[Slot, ...]:
        """List every slot on a tensor, nested groups first.

        That is the order in which they are applied.
        """
        return self._slots_on.get(tensor, ())

    @cached_property
    def _slots_of(self) -> dict[str, tuple[Slot, ...]]:
        return {name: tuple(slot for slot in self.slots if slot.group == name) for name in self.names}

    @cached_property
    def _slots_on(self) -> dict[str, tuple[Slot, ...]]:
        found: dict[str, list[Slot]] = {}
        for slot in self.slots:
            found.setdefault(slot.tensor, []).append(slot)
        # What is applied first to a constant tensor needs one product less in the backward pass: the largest.
        order = {group.name: (-self._depth(group), -group.size) for group in self.groups}
        return {t: tuple(sorted(slots, key=lambda slot: order[slot.group])) for t, slots in found.items()}

    def _depth(self, group: Group) -> int:
        return 0 if group.parent is None else 1 + self._depth(self[group.parent])

    @cached_property
    def parameters(self) -> dict[str, None]:
        """List the names of the parameters in order.

        Those that share one tensor come under the first of their names.
        """
        again = {name for names in self.tied for name in names[1:]}
        return {name: None for name in self.shapes if name not in self.buffers | again}

    @cached_property
    def compared(self) -> dict[str, None]:
        """List the parameters that two networks are compared by.

        They are all but the ignored ones, in order.
        """
        return {name: None for name in self.parameters if name not in self.ignored}

    @cached_property
    def fingerprint(self) -> str:
        """Give a hash of the architecture.

        It covers the names and shapes of the tensors.
        """
        described = json.dumps(sorted((name, list(shape)) for name, shape in self.shapes.items()))
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Name a group's ancestors, the nearest first.

        These are the groups that it is nested in.
        """
        parent = self[name].parent
        return () if parent is None else (parent, *self.ancestors(parent))

    def children(self, name: str) -> tuple[Group, ...]:
        """List the groups nested directly in a group."""
        return tuple(group for group in self.groups if group.parent == self[name].name)
