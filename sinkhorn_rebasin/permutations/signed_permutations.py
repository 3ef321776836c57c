"""Permutations with signs: a matrix that moves the units of one slot and negates some, and of another slot not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State, StateLike
from sinkhorn_rebasin.permutations.action import permute_state
from sinkhorn_rebasin.permutations.algebra import is_hard, unit_movement
from sinkhorn_rebasin.permutations.continuous import (
    NO_CONTINUOUS,
    ContinuousSpec,
    Maps,
    split_spec,
    with_inverses,
)
from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, rescale_state
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns
from sinkhorn_rebasin.permutations.slots import Group, Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec


@dataclass(frozen=True)
class SignedPermutations:
    r"""Act by permutations with a sign for every pair.

    .. math:: M_k = P \circ \prod_g S_g^{e_{gk}}

    moves slot k, with g over the sign generators of its group. Signs of pairs, and not of units, let a soft
    permutation say that a unit is like one of the reference and like the negative of another.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
        >>> x = torch.randn(4, 3)
        >>> spec = discover_symmetry(net, x)
        >>> swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> signs = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]])      # the new first unit is the old second, negated
        >>> action = SignedPermutations(spec, discover_rescaling(net, spec, x))
        >>> state = action.applied(net.state_dict(), {"0": swap}, {"0": signs})
        >>> torch.equal(state["0.bias"], net[0].bias.detach()[[1, 0]] * torch.tensor([-1.0, 1.0]))
        True
        >>> torch.allclose(torch.func.functional_call(net, state, x), net(x), atol=1e-6)
        True
    """

    spec: PermutationSpec
    rescaling: RescalingSpec
    continuous: ContinuousSpec = NO_CONTINUOUS

    def applied(
        self,
        state: StateLike,
        permutations: Permutations,
        signs: Mapping[str, Tensor],
        maps: Maps = MappingProxyType({}),
    ) -> State:
        """Move a state by permutations, signs and maps.

        Differentiable in soft permutations, in their signs, in the maps and in the state.

        Args:
            state: tensor name to tensor.
            permutations: per group, indices (..., n) or matrices (..., n, n), of one kind all of them.
            signs: per group with sign generators, of the target's units beside indices, (generators, ..., n), and of
                pairs of units beside matrices, (generators, ..., n, n).
            maps: of every group with a continuous symmetry, in place of a permutation.
        """
        if is_hard(permutations):
            spec, inverted = self._whole
            state = rescale_state(state, self.spec, self.rescaling, signs=signs)
            return permute_state(state, spec, {**permutations, **with_inverses(maps, inverted)})
        return permute_state(state, *self.matrices(permutations, signs, maps))

    def matrices(
        self,
        permutations: Permutations,
        signs: Mapping[str, Tensor],
        maps: Maps = MappingProxyType({}),
    ) -> tuple[PermutationSpec, dict[str, Tensor]]:
        """Return the slots by what moves them, and matrices.

        Slots that are negated or inverted have groups of their own. Permutations are soft.
        """
        (spec, inverted), (_, odd) = self._whole_split, self._split
        matrices = {**permutations, **with_inverses(maps, inverted)}
        for name, (group, generators) in odd.items():
            matrices[name] = permutations[group] * signs[group][list(generators)].prod(0)
        return spec, matrices

    @cached_property
    def _whole(self) -> tuple[PermutationSpec, dict[str, str]]:
        """Add the groups of inverted slots and rotary units to the spec."""
        return split_spec(self.spec, self.continuous)

    @cached_property
    def _whole_split(self) -> tuple[PermutationSpec, dict[str, str]]:
        """Add them to the spec in which negated slots have groups of their own."""
        return split_spec(self._split[0], self.continuous)

    @cached_property
    def _split(self) -> tuple[PermutationSpec, dict[str, tuple[str, tuple[int, ...]]]]:
        """Give negated slots a group of their own.

        Returns the spec, and per new group the generators that negate its slots.
        """
        groups: list[Group] = []
        slots: list[Slot] = []
        odd: dict[str, tuple[str, tuple[int, ...]]] = {}
        first = {name: names[0] for names in self.spec.tied for name in names}
        for group in self.spec.groups:
            patterns = SignPatterns.of(self.rescaling, group.name)
            groups.append(group)
            for slot in self.spec.slots_of(group.name):
                for part in patterns.parts(replace(slot, tensor=first.get(slot.tensor, slot.tensor))):
                    name, generators = group.name, patterns.negating(part)
                    if generators:
                        # No name of the user's has a space at its end.
                        name = f"{group.name} {generators} "
                        odd[name] = (group.name, generators)
                    slots.append(replace(part, group=name, tensor=slot.tensor))
            groups.extend(replace(group, name=name) for name, (of, _) in odd.items() if of == group.name)
        return replace(self.spec, groups=tuple(groups), slots=tuple(slots)), odd


def compose_signs(
    spec: PermutationSpec,
    second: Mapping[str, Tensor],
    first: Mapping[str, Tensor],
    permutations: Permutations,
) -> dict[str, Tensor]:
    """The signs that act like ``first`` and then, at the places its ``permutations`` lead to, like ``second``.

    >>> spec = PermutationSpec((Group("a", 2),), (), {})
    >>> signs = {"a": torch.tensor([[1.0, -1.0]])}
    >>> compose_signs(spec, signs, signs, {"a": torch.tensor([1, 0])})["a"].tolist()
    [[-1.0, -1.0]]
    """
    moved = _at_places_before(spec, second, permutations)
    return {**first, **{n: first[n] * later if n in first else later for n, later in moved.items()}}


def compose_log_scales(
    spec: PermutationSpec,
    second: Mapping[str, Tensor],
    first: Mapping[str, Tensor],
    permutations: Permutations,
) -> dict[str, Tensor]:
    """Add the log-scales of two alignments, of which the first permutes.

    >>> spec = PermutationSpec((Group("a", 2),), (), {})
    >>> scales = {"a": torch.tensor([[1.0, 5.0]])}
    >>> compose_log_scales(spec, scales, scales, {"a": torch.tensor([1, 0])})["a"].tolist()
    [[6.0, 6.0]]
    """
    moved = _at_places_before(spec, second, permutations)
    return {**first, **{n: first[n] + later if n in first else later for n, later in moved.items()}}


def _at_places_before(
    spec: PermutationSpec, values: Mapping[str, Tensor], permutations: Permutations
) -> dict[str, Tensor]:
    """Order values of units as the units stood before the permutations."""
    moved = {}
    for name, value in values.items():
        destination = unit_movement(spec, permutations, name).argsort().to(value.device)
        moved[name] = value.flatten(1)[:, destination].reshape(value.shape)
    return moved


def inverse_signs(
    spec: PermutationSpec, signs: Mapping[str, Tensor], permutations: Permutations
) -> dict[str, Tensor]:
    """The signs that undo these, where ``permutations`` act after them."""
    return {
        name: value.flatten(1)[:, unit_movement(spec, permutations, name).to(value.device)].reshape(
            value.shape
        )
        for name, value in signs.items()
    }


def signs_of_units(scores: Mapping[str, Tensor], permutations: Permutations) -> dict[str, Tensor]:
    """Read the units' signs off the matched pairs.

    They are ±1 for each of the target's units, (generators, ..., n).

    >>> scores = torch.tensor([[[0.0, -2.0], [3.0, 0.0]]])
    >>> signs_of_units({"a": scores}, {"a": torch.tensor([1, 0])})["a"].tolist()
    [[1.0, -1.0]]
    """
    signs = {}
    for name, value in scores.items():
        units = permutations[name].to(value.device).expand(value.shape[:-1])
        chosen = value.detach().gather(-1, units[..., None]).squeeze(-1)
        ones = torch.ones_like(chosen)
        signs[name] = ones.scatter(-1, units, torch.where(chosen < 0, -ones, ones))
    return signs
