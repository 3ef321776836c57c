"""FedMA: several owners' networks matched layer by layer, each layer as wide as its posterior asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.layer_by_layer import groups_in_order
from sinkhorn_rebasin.matching.weights.similarity import units_of
from sinkhorn_rebasin.merging.growing import Owned, grown, owned_networks, scaled_by_unit
from sinkhorn_rebasin.merging.states import mean_state, without_mean
from sinkhorn_rebasin.merging.unit_posterior import UnitPrior, assign_units
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.permutations import PermutationSpec, Slot

Retrain: TypeAlias = Callable[[int, nn.Module, frozenset[str]], nn.Module]
"""(number of the owner, network, names of tensors that must stay) to the network trained on."""


def fedma(
    networks: Sequence[nn.Module],
    example_inputs: ExampleInputs,
    *,
    shares: Sequence[float] | None = None,
    prior: UnitPrior | None = None,
    retrain: Retrain | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Merge networks by federated matched averaging.

    Layers are matched in the order of computation. The weights that come into a layer's units assign them to global
    units, of which new ones are made where they pay: see :class:`UnitPrior`. What comes in is then averaged over the
    networks that have the unit, by their shares s. What goes out is averaged over all, a missing unit's being zero:

    .. math:: W^{\text{in}}_g = \frac{\sum_{j \ni g} s_j W^{\text{in}}_{j, g}}{\sum_{j \ni g} s_j}, \qquad
        W^{\text{out}}_g = \sum_{j \ni g} s_j W^{\text{out}}_{j, g}

    Every network goes on with the averaged layer, and may be trained again with that layer and all before it held.
    Hidden units of a recurrent layer are one group: all gates' rows and the columns that lead back move together.

    Args:
        networks: at least two, of one architecture; widths may differ. None is changed.
        example_inputs: a tensor, tuple or dict that the networks take, to discover symmetries with. Only its shape
            counts: no data is looked at.
        shares: of the samples, one a network, adding up to 1; equal without them.
        prior: σ, σ_0, γ of every layer.
        retrain: trains one owner's network, in place or a copy, after each layer; None: nothing is trained.
        generator: draws the orders; without it a fixed order of its own is used.

    Returns:
        A network of the first one's class, as wide as all layers' global units.

    Raises:
        ArchitectureError: networks that differ in more than units, layers whose width cannot change, or held
            tensors that were trained; the first is named.
        SpecError: nested groups, as heads of attention; they are named.
        SymmetryError: a wider network computes something else, as under layer norm.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        >>> merged = fedma([net, net], torch.randn(4, 3).double(), prior=UnitPrior(sigma=0.01))
        >>> torch.allclose(merged[2].weight, net[2].weight)
        True

    Source: Wang et al., "Federated Learning with Matched Averaging" (2020).
    """
    prior = prior or UnitPrior()
    owners = owned_networks(networks, example_inputs, shares, "fedma")
    order = [
        (group.name, slots)
        for group, slots in groups_in_order(owners[0].spec, "fedma", "merge such networks by sr.align_many")
    ]
    made = {name: _places_made(owners[0].spec, name, slots) for name, slots in order}
    held: dict[str, list[Tensor]] = {}
    done: set[str] = set()
    for name, slots in order:
        features = [_features(owned, name, slots) for owned in owners]
        places = assign_units(features, [owned.share for owned in owners], prior, generator)
        size = 1 + max(int(each.max()) for each in places)
        owners = [
            grown(owned, name, each, size, example_inputs) for owned, each in zip(owners, places, strict=True)
        ]
        held[name] = [torch.zeros(size, dtype=torch.float64).index_fill(0, each, 1.0) for each in places]
        fresh = _completed(owners[0].spec, set(held), made) - done
        owners = _averaged(owners, fresh, held, made)
        done |= fresh
        if retrain is not None:
            owners = [_trained(n, owned, frozenset(done), retrain) for n, owned in enumerate(owners)]
    shares = [owned.share for owned in owners]
    whole = without_mean([owned.network for owned in owners])
    return resized(owners[0].network, mean_state([owned.state for owned in owners], shares, whole))


_Place: TypeAlias = tuple[str, tuple[int, ...]]


def _places_made(spec: PermutationSpec, name: str, slots: Sequence[Slot]) -> set[_Place]:
    """List where a group's units are made."""
    first = [slot for slot in spec.slots_of(name) if slot.axes == (0,)]
    return {(slot.tensor, slot.axes) for slot in [*slots, *first]}


def _features(owned: Owned, name: str, slots: Sequence[Slot]) -> Tensor:
    """List what matched layers send each unit."""
    places, state = {(slot.tensor, slot.axes) for slot in slots}, owned.state
    rows = [
        units_of(state[slot.tensor], slot)[0].double().cpu()
        for slot in owned.spec.slots_of(name)
        if (slot.tensor, slot.axes) in places
    ]
    return torch.cat(rows, 1)


def _completed(spec: PermutationSpec, known: set[str], made: Mapping[str, set[_Place]]) -> set[str]:
    """Name the tensors whose groups are all matched.

    Only tensors that make units count; what only reads them comes last."""
    return {
        slot.tensor
        for name in known
        for slot in spec.slots_of(name)
        if (slot.tensor, slot.axes) in made[name]
        and all(other.group in known for other in spec.slots_on(slot.tensor))
    }


def _averaged(
    owners: Sequence[Owned],
    names: set[str],
    held: Mapping[str, Sequence[Tensor]],
    made: Mapping[str, set[_Place]],
) -> list[Owned]:
    """Give every owner the mean of these tensors.

    Each unit's is taken over the owners that have it."""
    states: list[State] = [owned.state for owned in owners]
    shares = [owned.share for owned in owners]
    for name in sorted(names - without_mean([owned.network for owned in owners])):
        slots = [slot for slot in owners[0].spec.slots_on(name) if (name, slot.axes) in made[slot.group]]
        tensors = [state[name] for state in states]
        if not tensors[0].is_floating_point():
            continue
        for slot in slots:
            # A unit that an owner has not counts nothing, whatever stands in its place.
            having = sum(share * each for share, each in zip(shares, held[slot.group], strict=True))
            tensors = [
                scaled_by_unit(tensor, slot, each / having)
                for tensor, each in zip(tensors, held[slot.group], strict=True)
            ]
        mean = mean_state([{name: tensor} for tensor in tensors], shares)[name]
        for state in states:
            state[name] = mean
    return [
        replace(owned, network=resized(owned.network, state))
        for owned, state in zip(owners, states, strict=True)
    ]


def _trained(number: int, owned: Owned, names: frozenset[str], retrain: Retrain) -> Owned:
    """Let an owner train on; check what must stay.

    Raises:
        ArchitectureError: a held tensor changed, or what comes back is no network; it is named.
    """
    before = {name: tensor.detach().clone() for name, tensor in owned.state.items()}
    network = retrain(number, owned.network, names)
    if not isinstance(network, nn.Module):
        raise ArchitectureError(f"Expected retrain to return a network but got {type(network).__name__}.")
    after = replace(owned, network=network)
    state = after.state
    for name in sorted(names & owned.spec.parameters.keys()):
        if name not in state or not torch.equal(state[name], before[name]):
            raise ArchitectureError(
                f"Expected retrain to hold {name!r} of network {number}, whose layer is matched, but it changed: "
                f"take the names it is given out of the optimizer."
            )
    return after
