"""Assignments of all groups at once, nested ones together with their blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sinkhorn_rebasin.activations.operation_sites import OperationSite
from sinkhorn_rebasin.activations.sites import Site
from sinkhorn_rebasin.activations.statistics import PairedMoments
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.finite_weights import comparable_states
from sinkhorn_rebasin.matching.signed_activations import best_signs, signs_of_matched, with_hidden_signs
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Group, PermutationSpec, identity_permutations
from sinkhorn_rebasin.permutations.algebra import block_movement

Seen: TypeAlias = Mapping[str, tuple[Site | OperationSite, PairedMoments]]
"""Per group, where its units were seen and their statistics there."""


class Matched(NamedTuple):
    """Hold what activations decide.

    Attributes:
        permutations: of all groups, the identity where nothing was seen.
        decided: names of the groups that were seen.
        signs: of their units, in the target's order.
        total: the sum of what was matched.
    """

    permutations: dict[str, Tensor]
    decided: set[str]
    signs: dict[str, Tensor]
    total: float


def assign_seen(standing: Standing, seen: Seen, similarity: Literal["correlation", "uncentred"]) -> Matched:
    """Match all groups seen, up to free signs.

    Signs that nothing read shows are chosen by the weights of the standing.
    """
    spec, rescaling = standing.spec, standing.rescaling
    found = {}
    for name in (name for name in spec.names if name in seen):
        site, moments = seen[name]
        values = moments.correlations() if similarity == "correlation" else moments.products()
        signed = best_signs(values, site.parities, standing.patterns(name))
        if signed is not None:
            found[name] = signed
    permutations, decided, total = assign_all(spec, {name: each.worth for name, each in found.items()})
    found = {name: each for name, each in found.items() if name in decided}
    signs = signs_of_matched(spec, rescaling, permutations, found)
    states = comparable_states(standing.reference, standing.target, spec)
    signs = with_hidden_signs(states, spec, rescaling, permutations, signs, found)
    return Matched(permutations, decided, signs, total)


def assign_all(spec: PermutationSpec, alike: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str], float]:
    """Permute every group that has a similarity (units, units).

    Returns:
        Permutations of all groups, the names of those chosen, and the sum of what was matched.
    """
    permutations, decided, total = identity_permutations(spec), set[str](), 0.0
    for group in spec.groups:
        children = [
            child
            for child in spec.children(group.name)
            if child.name in alike and child.blocks == group.units and group.parent is None
        ]
        if group.name in decided or not (children or group.name in alike):
            continue
        if group.parent is not None and group.parent not in decided:
            continue  # weight matched together with the blocks it lives in
        if children:
            chosen, value = _assign_blocks(group, children, alike)
        else:
            chosen, value = _assign_inside(
                group, alike[group.name], block_movement(spec, permutations, group)
            )
        permutations.update(chosen)
        decided |= chosen.keys()
        total += value
    return permutations, decided, total


def _assign_inside(group: Group, alike: Tensor, origin: Tensor) -> tuple[dict[str, Tensor], float]:
    """Permute inside each block, given where blocks stand."""
    pairs = _by_blocks(group, alike)[torch.arange(group.blocks, device="cpu"), origin]
    best = hard_assignment(pairs)
    found = torch.empty_like(best)
    found[origin] = best
    return {group.name: found.reshape(group.shape)}, float(pairs.gather(-1, best[..., None]).sum())


def _assign_blocks(
    group: Group, children: list[Group], alike: dict[str, Tensor]
) -> tuple[dict[str, Tensor], float]:
    """Choose whole blocks and what is inside together.

    A pair of blocks is worth the best inside of it.
    """
    worth = alike.get(group.name, torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu"))
    inside = {}
    for child in children:
        pairs = _by_blocks(child, alike[child.name])
        inside[child.name] = hard_assignment(pairs)
        worth = worth + pairs.gather(-1, inside[child.name][..., None]).squeeze(-1).sum(-1)
    blocks = hard_assignment(worth)
    chosen = {group.name: blocks.reshape(group.shape)}
    places = torch.arange(group.size, device="cpu")
    for child in children:
        found = torch.empty(child.blocks, child.size, dtype=torch.long, device="cpu")
        found[blocks] = inside[child.name][places, blocks]
        chosen[child.name] = found.reshape(child.shape)
    return chosen, float(worth[places, blocks].sum())


def _by_blocks(group: Group, alike: Tensor) -> Tensor:
    """Sort similarities by pairs of blocks.

    Returns:
        (blocks, blocks, size, size).
    """
    return alike.reshape(group.blocks, group.size, group.blocks, group.size).permute(0, 2, 1, 3)
