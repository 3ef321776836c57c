"""What may be permuted in a network: groups of hidden units and the axis slots where they show up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import Outputs, StateLike
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.holding import parted_group
from sinkhorn_rebasin.permutations.ignoring import names_matching, only_ignored, tensors_matching
from sinkhorn_rebasin.permutations.json_form import check_spec_json
from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot
from sinkhorn_rebasin.permutations.structure import AxesToPerm, SpecStructure
from sinkhorn_rebasin.permutations.validity import Validity, digest_of
from sinkhorn_rebasin.permutations.views.coverage import covered_share
from sinkhorn_rebasin.permutations.views.git_rebasin import from_axes_to_perm, to_axes_to_perm
from sinkhorn_rebasin.permutations.views.graph import to_mermaid, to_networkx
from sinkhorn_rebasin.permutations.views.report import describe, describe_markdown, summarise
from sinkhorn_rebasin.permutations.views.report_html import describe_html

__all__ = ["Frozen", "Group", "PermutationSpec", "Slot", "tensor_shapes"]


@dataclass(frozen=True, repr=False, eq=False)
class PermutationSpec(SpecStructure):
    """Hold the permutation symmetries of one architecture.

    These are groups, their slots, and what is frozen and why. Immutable and two-way: :meth:`slots_of` leads from a
    group to its slots, :meth:`slots_on` from a tensor to the slots on it. Parents come before their nested groups.
    ``tied`` are the names that share one tensor. ``constants`` are hashes of the integers of the state dict that the
    network reads, as an order of channels: another network of the architecture has the same symmetries where it has
    the same ones. ``validity`` tells for which inputs discovery found them, and what was proven; two specs that
    differ in nothing else are equal. ``ignored`` are tensors that each network keeps for itself: see
    :meth:`ignoring`.

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

    def __repr__(self) -> str:
        return summarise(self)

    @property
    def outputs(self) -> Outputs:
        """Name the outputs that the symmetries leave unchanged.

        None stands for those that count by default.
        """
        return self.validity.selection if self.validity else None

    def counting(self, outputs: Outputs) -> PermutationSpec:
        """Restrict the spec's claim to these outputs.

        None leaves the spec as it is.
        """
        if outputs is None:
            return self
        return replace(self, validity=(self.validity or Validity()).counting(outputs))

    @property
    def coverage(self) -> float:
        """Measure the share of parameter elements that can move.

        Such an element lies on at least one permutable position.
        """
        return covered_share(self)

    def check_state(self, state: StateLike) -> None:
        """Raise :class:`SpecError` unless a state fits the architecture.

        The first tensor that differs is named. One name of a tied tensor is enough, and a state of parameters alone
        need not have buffers.
        """
        check_state(self, state)

    def check_constants(self, state: StateLike) -> None:
        """Raise :class:`SpecError` unless the integers are the spec's.

        The first integers that differ from those of the spec's network are named.
        """
        for name, digest in self.constants.items():
            if name in state and digest_of(state[name]) != digest:
                raise SpecError(
                    f"Expected integers {name!r} as in the network that the spec was discovered on, which reads "
                    f"them, but got others: discover the symmetries of this network."
                )

    def without(self, *names: str, reason: str = "") -> PermutationSpec:
        """Hold these groups fixed.

        Groups nested in them stay, inside the next ancestor that stays.
        """
        dropped = {self[name].name for name in names}
        kept = tuple(
            replace(group, parent=self._nearest(group.name, dropped))
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

    def ignoring(self, *patterns: str) -> PermutationSpec:
        """Leave tensors out of everything that compares or averages.

        Each network keeps its own, as heads of other tasks are kept. Their shapes may differ on axes that no group
        holds. Groups still move them on the axes they hold, so a moved network computes what it did. Groups that
        nothing but ignored tensors hold stay in order.

        Args:
            patterns: names of tensors or of modules, or patterns such as ``"*.classifier.*"``.

        Raises:
            SpecError: a pattern names no tensor, or one of several names of a tied tensor.

        >>> from sinkhorn_rebasin.permutations.layout import Layout
        >>> shapes = {"fc.weight": (4, 3), "head.weight": (2, 4)}
        >>> slots = Slot("fc", "fc.weight", (0,), Layout(1, 4)), Slot("fc", "head.weight", (1,), Layout(1, 4))
        >>> spec = PermutationSpec((Group("fc", 4),), slots, shapes).ignoring("head")
        >>> sorted(spec.ignored), list(spec.compared), spec.names
        (['head.weight'], ['fc.weight'], ['fc'])
        """
        ignored = self.ignored | names_matching(self, patterns)
        spec = replace(self, ignored=frozenset(ignored))
        return spec.without(*only_ignored(spec), reason="only ignored tensors hold its units")

    def holding(self, network: StateLike | nn.Module, *patterns: str) -> PermutationSpec:
        """Permute only units that these tensors do not tell apart.

        The tensors then stay as they are. That pays for buffers that all networks share and that are not trained,
        such as the masks of autoregressive networks, fixed frequencies or knots of splines, and costs where they
        tell most units apart, as random masks of pruned weights do.

        Args:
            network: the network, or the state of one, that has the tensors.
            patterns: names of tensors or of modules, or patterns such as ``"*.mask"``.

        Raises:
            SpecError: a pattern names no tensor, or the network is of another architecture.

        >>> from sinkhorn_rebasin.permutations.layout import Layout
        >>> import torch
        >>> slots = Slot("fc", "fc.weight", (0,), Layout(1, 4)), Slot("fc", "fc.mask", (0,), Layout(1, 4))
        >>> spec = PermutationSpec((Group("fc", 4),), slots, {"fc.weight": (4, 3), "fc.mask": (4,)})
        >>> state = {"fc.weight": torch.ones(4, 3), "fc.mask": torch.tensor([1, 0, 1, 0])}
        >>> spec.holding(state, "*.mask").names
        ['fc:0', 'fc:1']
        """
        state = network.state_dict(keep_vars=True) if isinstance(network, nn.Module) else network
        check_state(self, state)
        held = tensors_matching(self, patterns, "hold") & state.keys()
        reason = f"units are told apart by {', '.join(sorted(held))}"
        parted = {group.name: parted_group(self, group, state, held) for group in self.groups}
        spec = self.without(*(name for name, (parts, _) in parted.items() if not parts), reason=reason)
        groups: list[Group] = []
        for group in spec.groups:
            parts = parted[group.name][0]
            groups += [group] if parts[0].name == group.name else parts
        slots = tuple(slot for _, slots in parted.values() for slot in slots)
        return replace(spec, groups=tuple(groups), slots=slots)

    def _nearest(self, name: str, dropped: set[str]) -> str | None:
        return next((parent for parent in self.ancestors(name) if parent not in dropped), None)

    def to_json(self) -> str:
        """Write the spec as JSON text for :meth:`from_json`."""
        return json.dumps(
            {
                "fingerprint": self.fingerprint,
                "groups": [vars(group) for group in self.groups],
                "slots": [slot.to_json() for slot in self.slots],
                "shapes": {name: list(shape) for name, shape in self.shapes.items()},
                "frozen": [vars(item) for item in self.frozen],
                "buffers": sorted(self.buffers),
                "tied": self.tied,
                "constants": dict(self.constants),
                "validity": self.validity and self.validity.to_json(),
                "ignored": sorted(self.ignored),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> PermutationSpec:
        """Read the spec that :meth:`to_json` wrote.

        Raises :class:`SpecError` when the text is none.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            check_spec_json(data)
            fields: dict[str, Any] = {
                "groups": tuple(Group(**group) for group in data["groups"]),
                "slots": tuple(Slot.from_json(slot) for slot in data["slots"]),
                "shapes": {name: tuple(shape) for name, shape in data["shapes"].items()},
                "frozen": tuple(Frozen(**item) for item in data["frozen"]),
                "buffers": frozenset(data["buffers"]),
                "tied": tuple(tuple(names) for names in data.get("tied", ())),
                "constants": dict(data.get("constants", {})),
                "validity": Validity.from_json(data["validity"]) if data.get("validity") else None,
                "ignored": frozenset(data.get("ignored", ())),
            }
        except SpecError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SpecError(f"Expected the JSON of a spec but got {text[:40]!r}: {error!r}.") from error
        return cls(**fields)

    def to_networkx(self) -> Any:
        """Draw the spec as a ``networkx.MultiDiGraph``, by :mod:`sinkhorn_rebasin.permutations.views.graph`."""
        return to_networkx(self)

    def to_mermaid(self) -> str:
        """Draw the spec as a Mermaid flowchart.

        See :func:`~sinkhorn_rebasin.permutations.views.graph.to_mermaid`.
        """
        return to_mermaid(self)

    def to_axes_to_perm(self) -> AxesToPerm:
        """Return the spec as Git Re-Basin's dictionary.

        It leads from a tensor to the group name, or None, of each axis.
        """
        return to_axes_to_perm(self)

    @classmethod
    def from_axes_to_perm(
        cls, axes_to_perm: AxesToPerm, state_or_model: StateLike | nn.Module
    ) -> PermutationSpec:
        """Read a dictionary written for Git Re-Basin.

        ``state_or_model`` is a state or a network.
        """
        structure = from_axes_to_perm(axes_to_perm, state_or_model)
        return cls(**{each.name: getattr(structure, each.name) for each in fields(structure)})

    def __str__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return describe_html(self)

    def _repr_markdown_(self) -> str:
        return describe_markdown(self)


def tensor_shapes(state: StateLike, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a state's named tensors."""
    return {name: tuple(state[name].shape) for name in names}
