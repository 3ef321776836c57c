"""What may be permuted in a network: groups of hidden units and the axis slots where they show up."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from torch import nn

from sinkhorn_rebasin._typing import Outputs, StateLike
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.coverage import covered_share
from sinkhorn_rebasin.permutations.json_form import check_spec_json
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot
from sinkhorn_rebasin.permutations.validity import Validity, digest_of

__all__ = ["Frozen", "Group", "PermutationSpec", "Slot", "tensor_shapes"]

AxesToPerm: TypeAlias = Mapping[str, Sequence[str | None]]
"""Tensor name to the name of a permutation, or None, of each axis."""


@dataclass(frozen=True, repr=False)
class PermutationSpec:
    """The permutation symmetries of one architecture: groups, their slots, and what is frozen and why.

    Immutable and two-way: :meth:`slots_of` leads from a group to its slots, :meth:`slots_on` from a tensor
    to the slots on it. Parents come before their nested groups. ``tied`` are the names that share one tensor.
    ``constants`` are hashes of the integers of the state dict that the network reads, as an order of channels:
    another network of the architecture has the same symmetries where it has the same ones.
    ``validity`` tells for which inputs discovery found them, and what was proven; two specs that differ in nothing
    else are equal.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> layout = Layout(blocks=1, size=4)
    >>> spec = PermutationSpec(
    ...     groups=(Group("hidden", 4),),
    ...     slots=(Slot("hidden", "0.weight", (0,), layout), Slot("hidden", "1.weight", (1,), layout)),
    ...     shapes={"0.weight": (4, 3), "1.weight": (2, 4)},
    ... )
    >>> spec["hidden"].size, [slot.tensor for slot in spec.slots_of("hidden")]
    (4, ['0.weight', '1.weight'])
    >>> PermutationSpec.from_json(spec.to_json()) == spec
    True
    """

    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    shapes: Mapping[str, tuple[int, ...]]
    frozen: tuple[Frozen, ...] = ()
    buffers: frozenset[str] = frozenset()
    tied: tuple[tuple[str, ...], ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    validity: Validity | None = field(default=None, compare=False)

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

    def __repr__(self) -> str:
        from sinkhorn_rebasin.permutations.report import summarise

        return summarise(self)

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
        """Names of the groups, parents first."""
        return [group.name for group in self.groups]

    @property
    def outputs(self) -> Outputs:
        """Which outputs of the network the symmetries leave unchanged; None for those that count by default."""
        return self.validity.selection if self.validity else None

    def counting(self, outputs: Outputs) -> PermutationSpec:
        """The spec as a claim about these outputs; None leaves it as it is."""
        if outputs is None:
            return self
        return replace(self, validity=(self.validity or Validity()).counting(outputs))

    def slots_of(self, name: str) -> tuple[Slot, ...]:
        """Every slot of a group."""
        return self._slots_of[self[name].name]

    def slots_on(self, tensor: str) -> tuple[Slot, ...]:
        """Every slot on a tensor, nested groups first: the order in which they are applied."""
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
        """Names of the parameters in order, those that share one tensor under the first of their names."""
        again = {name for names in self.tied for name in names[1:]}
        return {name: None for name in self.shapes if name not in self.buffers | again}

    @property
    def coverage(self) -> float:
        """Share of parameter elements that lie on at least one permutable position."""
        return covered_share(self)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tensor names and shapes of the architecture this spec describes."""
        described = json.dumps(sorted((name, list(shape)) for name, shape in self.shapes.items()))
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def check_state(self, state: StateLike) -> None:
        """Raise :class:`SpecError` naming the first tensor in which a state differs from this architecture.

        One name of a tied tensor is enough, and a state of parameters alone need not have buffers.
        """
        check_state(self, state)

    def check_constants(self, state: StateLike) -> None:
        """Raise :class:`SpecError` naming the first integers that differ from those of the spec's network."""
        for name, digest in self.constants.items():
            if name in state and digest_of(state[name]) != digest:
                raise SpecError(
                    f"Expected integers {name!r} as in the network that the spec was discovered on, which reads "
                    f"them, but got others: discover the symmetries of this network."
                )

    def without(self, *names: str, reason: str = "") -> PermutationSpec:
        """The spec with these groups held fixed; groups nested in them stay, inside the next ancestor that stays."""
        dropped = {self[name].name for name in names}
        kept = tuple(
            replace(group, parent=self._ancestor_outside(group, dropped))
            for group in self.groups
            if group.name not in dropped
        )
        frozen = tuple(
            Frozen(slot.tensor, slot.axes[-1], reason or f"group {slot.group!r} was dropped on request")
            for slot in self.slots
            if slot.group in dropped
        )
        slots = tuple(slot for slot in self.slots if slot.group not in dropped)
        return replace(self, groups=kept, slots=slots, frozen=self.frozen + frozen)

    def _ancestor_outside(self, group: Group, dropped: set[str]) -> str | None:
        parent = group.parent
        while parent is not None and parent in dropped:
            parent = self[parent].parent
        return parent

    def to_json(self) -> str:
        """The spec as JSON text; :meth:`from_json` reads it back."""
        return json.dumps(
            {
                "fingerprint": self.fingerprint,
                "groups": [vars(group) for group in self.groups],
                "slots": [{**vars(slot), "layout": slot.layout.to_json()} for slot in self.slots],
                "shapes": {name: list(shape) for name, shape in self.shapes.items()},
                "frozen": [vars(item) for item in self.frozen],
                "buffers": sorted(self.buffers),
                "tied": self.tied,
                "constants": dict(self.constants),
                "validity": self.validity and self.validity.to_json(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> PermutationSpec:
        """The spec that :meth:`to_json` wrote; raises :class:`SpecError` when the text is none."""
        try:
            data: dict[str, Any] = json.loads(text)
            check_spec_json(data)
            fields: dict[str, Any] = {
                "groups": tuple(Group(**group) for group in data["groups"]),
                "slots": tuple(_slot_from_json(slot) for slot in data["slots"]),
                "shapes": {name: tuple(shape) for name, shape in data["shapes"].items()},
                "frozen": tuple(Frozen(**item) for item in data["frozen"]),
                "buffers": frozenset(data["buffers"]),
                "tied": tuple(tuple(names) for names in data.get("tied", ())),
                "constants": dict(data.get("constants", {})),
                "validity": Validity.from_json(data["validity"]) if data.get("validity") else None,
            }
        except SpecError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SpecError(f"Expected the JSON of a spec but got {text[:40]!r}: {error!r}.") from error
        return cls(**fields)

    def to_networkx(self) -> Any:
        """The spec as a ``networkx.MultiDiGraph``: see :func:`~sinkhorn_rebasin.permutations.graph.to_networkx`."""
        from sinkhorn_rebasin.permutations.graph import to_networkx

        return to_networkx(self)

    def to_mermaid(self) -> str:
        """The spec as a Mermaid flowchart: see :func:`~sinkhorn_rebasin.permutations.graph.to_mermaid`."""
        from sinkhorn_rebasin.permutations.graph import to_mermaid

        return to_mermaid(self)

    def to_axes_to_perm(self) -> AxesToPerm:
        """Tensor to group name, or None, of each axis: the dictionary that Git Re-Basin takes."""
        from sinkhorn_rebasin.permutations.axes_to_perm import to_axes_to_perm

        return to_axes_to_perm(self)

    @classmethod
    def from_axes_to_perm(
        cls, axes_to_perm: AxesToPerm, state_or_model: StateLike | nn.Module
    ) -> PermutationSpec:
        """The spec that a dictionary written by hand for Git Re-Basin stands for, of a state or a network."""
        from sinkhorn_rebasin.permutations.axes_to_perm import from_axes_to_perm

        return from_axes_to_perm(axes_to_perm, state_or_model)

    def __str__(self) -> str:
        from sinkhorn_rebasin.permutations.report import describe

        return describe(self)

    def _repr_markdown_(self) -> str:
        from sinkhorn_rebasin.permutations.report import describe_markdown

        return describe_markdown(self)


def _slot_from_json(data: Mapping[str, Any]) -> Slot:
    return Slot(data["group"], data["tensor"], tuple(data["axes"]), Layout.from_json(data["layout"]))


def tensor_shapes(state: StateLike, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the named tensors of a state."""
    return {name: tuple(state[name].shape) for name in names}
