"""Two networks that are merged in part: what writes units, what reads them, and what stays apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.activations.sites import has_transposed_weight
from sinkhorn_rebasin.errors import ArchitectureError, SpecError, listed
from sinkhorn_rebasin.matching.pair_of_states import as_states
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.completeness import check_spec
from sinkhorn_rebasin.permutations.ignoring import names_matching
from sinkhorn_rebasin.permutations.views.coverage import OUTPUT

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class TwoNetworks:
    """Hold two networks of one trunk.

    The roles of their tensors are with them.

    Attributes:
        reference, target: the networks as they were given.
        states: their tensors, each with its own head.
        spec: the symmetries; heads are ignored in it.
        heads: per tensor of a head that is kept apart, the axis of its outputs.
        writes: per slot, whether the tensor writes the units there; else it reads them.
    """

    reference: nn.Module
    target: nn.Module
    states: tuple[State, State]
    spec: PermutationSpec
    heads: Mapping[str, int]
    writes: Mapping[Slot, bool]

    @classmethod
    def of(
        cls,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        heads: Sequence[str] | None = None,
        transposed: Collection[str] = (),
    ) -> TwoNetworks:
        """Check two networks.

        Found out is who writes and reads.

        Args:
            reference, target: modules that differ in weights and in the shapes of heads alone.
            spec: the symmetries.
            heads: names or patterns of the last layers that are kept apart; None: all.
            transposed: parameters that write units on another axis than the first.

        Raises:
            ArchitectureError: no modules, other differences, or a tied tensor that both writes and reads units.
            SpecError: nested groups, or heads that are no last layers.
        """
        for role, network in (("reference", reference), ("target", target)):
            if not isinstance(network, nn.Module):
                raise ArchitectureError(
                    f"Expected the {role} to be a module, which is run, but got {type(network).__name__}."
                )
        check_spec(spec)
        _check_flat(spec)
        apart = _heads(spec, heads)
        spec = as_states(reference, target, spec, tuple(apart)).spec
        writes = {slot: _writes(reference, spec, slot, transposed) for slot in spec.slots}
        _check_ties(reference, spec, writes)
        return cls(reference, target, (tensors_of(reference), tensors_of(target)), spec, apart, writes)


def _heads(spec: PermutationSpec, patterns: Sequence[str] | None) -> dict[str, int]:
    """Name the tensors of last layers.

    Each comes with the axis of its outputs.
    """
    outputs = {item.tensor: item.axis for item in spec.frozen if item.reason == OUTPUT}
    if patterns is None:
        return outputs
    names = names_matching(spec, patterns) if patterns else set()
    others = sorted(names - set(outputs))
    if others:
        raise SpecError(
            f"Expected heads among the last layers, {listed(sorted(outputs))}, but got {listed(others)}, of which no "
            f"axis is an output of the network."
        )
    return {name: axis for name, axis in outputs.items() if name in names}


def _check_flat(spec: PermutationSpec) -> None:
    nested = [group.name for group in spec.groups if group.parent is not None or group.blocks > 1]
    if nested:
        raise SpecError(
            f"Expected groups of units that stand alone but {listed(map(repr, nested))} are nested in others, as "
            f"units inside heads are: leave them as they are with spec.without(...)."
        )


def _writes(network: nn.Module, spec: PermutationSpec, slot: Slot, transposed: Collection[str]) -> bool:
    """Tell whether a tensor writes units."""
    first = slot.axes[0] == 0
    if len(spec.shapes[slot.tensor]) == 1:
        return True
    if slot.tensor in transposed:
        return not first
    path, _, name = slot.tensor.rpartition(".")
    module = dict(network.named_modules(remove_duplicate=False)).get(path)
    turned = isinstance(module, nn.Embedding | nn.EmbeddingBag) or has_transposed_weight(module)
    turned |= isinstance(module, _ConvTransposeNd) and module.groups == 1
    if turned and name == "weight":
        return slot.axes[0] == 1
    if isinstance(module, _LAYERS):
        return first
    # A table that is added, such as that of positions, has its units last and becomes no output.
    alone = all(other.axes[0] != 0 for other in spec.slots_on(slot.tensor))
    is_output = any(item.tensor == slot.tensor and item.reason == OUTPUT for item in spec.frozen)
    return first or (alone and not is_output)


def _check_ties(network: nn.Module, spec: PermutationSpec, writes: Mapping[Slot, bool]) -> None:
    """Raise ArchitectureError for ties across roles.

    One memory must not write units under one name and read them under another.
    """
    layers = dict(network.named_modules(remove_duplicate=False))
    for names in spec.tied:
        kinds = {
            isinstance(layers.get(name.rpartition(".")[0]), nn.Embedding | nn.EmbeddingBag) for name in names
        }
        if len(kinds) > 1 and any(slot in writes for slot in spec.slots_on(names[0])):
            raise ArchitectureError(
                f"Expected tensors that either write units or read them but {listed(map(repr, names))} are one: give "
                f"each memory of its own with untie()."
            )
