"""Activation matching along continuous symmetries: streams are turned by what is seen of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.activations.sites import output_axis
from sinkhorn_rebasin.matching.activation_assignment import Matched, Seen
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.rotations.polar import best_rotation
from sinkhorn_rebasin.matching.rotations.turned_weights import MOST_ROUNDS, TurnedWeights
from sinkhorn_rebasin.matching.weights.beginning import search_from
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, Slot, permute_tensor


class TurnedStreams:
    """Turn streams by activations, and heads by weights.

    Attributes:
        visible: both networks, balanced, with a group of its own for each place where a stream is seen.
        discrete: both networks with the groups that activations permute, the streams of the target turned.
        rotations: of every stream that was seen.
    """

    def __init__(self, turned: TurnedWeights, network: nn.Module, begin: Alignment | None = None) -> None:
        """Find the places where each stream is seen; what is not seen begins as given."""
        self.begin = begin
        self.turned, spec, given = turned, turned.spec, turned.given
        groups = [each.group for each in turned.continuous.symmetries]
        self.streams = [
            group.name
            for group in groups
            if group.name in spec and group.parent is None and group.blocks == 1
        ]
        heads = {_root(spec, group) for group in groups if group.parent is not None}
        by_weights = [g.name for g in spec.groups if g.name in turned.continuous or _root(spec, g) in heads]
        plain = spec.without(*by_weights)
        standing = turned.standing
        generators = tuple(each for each in standing.rescaling.generators if each.group in plain)
        names = tuple(name for name in standing.rescaling.groups if name in plain)
        rescaling = RescalingSpec(names, generators)
        self.discrete = replace(standing, spec=plain, permutations={}, rescaling=rescaling)
        self.places = {name: _places(network, spec, name) for name in self.streams}
        slots = [slot for places in self.places.values() for slot in places]
        shown = [Group(slot.group, slot.layout.size) for slot in slots]
        self.visible = replace(
            self.discrete,
            reference=_in_types_of(given.reference, turned.balanced[0]),
            target=_in_types_of(given.target, turned.balanced[1]),
            spec=replace(plain, groups=(*plain.groups, *shown), slots=(*plain.slots, *slots)),
        )
        self.rotations: dict[str, Tensor] = {}

    def look(self, seen: Seen) -> None:
        """Turn every stream by its products at all places."""
        for name in self.streams:
            products = [
                _normalized_products(seen, slot.group) for slot in self.places[name] if slot.group in seen
            ]
            if products:
                self.rotations[name] = best_rotation(
                    sum(products[1:], products[0]), self.turned.continuous[name]
                )
        spec = self.turned.turning_spec
        target = {
            tensor: permute_tensor(value, self._turning(spec, tensor), self.rotations)
            for tensor, value in self.discrete.target.items()
        }
        self.discrete = replace(self.discrete, target=target)

    @property
    def unseen(self) -> list[str]:
        """Name the streams that no place shows."""
        return [name for name in self.streams if name not in self.rotations]

    def completed(self, matched: Matched, generator: torch.Generator) -> Alignment:
        """Match the rest by weights, all else held."""
        turned, standing = self.turned, self.turned.standing
        decided = {name: matched.permutations[name] for name in matched.decided}
        remaining = [
            group
            for group in standing.spec.groups
            if group.name not in decided and group.name not in self.rotations
        ]
        given, signs = standing.permutations, dict(matched.signs)
        if self.begin is not None:
            begin = replace(self.begin, permutations={**self.begin.permutations, **decided})
            given, signs = turned.as_balanced(begin), {**begin.signs, **signs}
        placed = replace(standing, permutations={**given, **decided, **self.rotations})
        search = search_from(Alignment({}, turned.spec, signs=signs), placed, generator)
        if self.begin is None:
            search.anchor(remaining)
        found = turned.as_alignment(search.climb(remaining, MOST_ROUNDS))
        return replace(
            found,
            objective=(matched.total,),
            weight_matched=tuple(group.name for group in remaining),
            signs={**found.signs, **matched.signs},
        )

    def _turning(self, spec: PermutationSpec, tensor: str) -> tuple[Slot, ...]:
        return tuple(slot for slot in spec.slots_on(tensor) if slot.group in self.rotations)


def _root(spec: PermutationSpec, group: Group) -> str:
    """Name the outermost group that a group lies in."""
    if group.parent is None:
        return group.name
    return (group.parent, *spec.ancestors(group.parent))[-1]


def _places(network: nn.Module, spec: PermutationSpec, name: str) -> list[Slot]:
    """List the places where a stream is seen.

    One slot for each module whose output shows it.

    Norms show the whole stream; other layers show what is added to it, and count where no norm does.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    places: dict[str, Slot] = {}
    for slot in spec.slots_of(name):
        path, _, tensor = slot.tensor.rpartition(".")
        if path not in places and output_axis(modules.get(path), tensor, slot) is not None:
            places[path] = replace(slot, group=f"{name} at {path} ")
    norms = [path for path in places if isinstance(modules[path], (nn.LayerNorm, nn.RMSNorm))]
    return [places[path] for path in norms or places]


def _normalized_products(seen: Seen, name: str) -> Tensor:
    """Divide products of units by both networks' size."""
    moments = seen[name][1]
    sizes = [
        (square / moments.count + mean.square()).sum()
        for square, mean in zip(moments.squares, moments.means, strict=True)
    ]
    least = torch.finfo(torch.float64).tiny
    return (moments.uncentred() / (sizes[0] * sizes[1]).sqrt().clamp_min(least)).cpu()


def _in_types_of(given: State, wide: State) -> State:
    return {name: tensor.to(given[name].dtype) for name, tensor in wide.items()}
