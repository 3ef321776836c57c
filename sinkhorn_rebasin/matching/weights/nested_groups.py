"""Matching whole blocks: attention heads or convolution groups together with what is permuted inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.rotations.polar import best_rotation, rotation_gain
from sinkhorn_rebasin.matching.weights.similarity import unit_rows
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Group, Slot, identity_permutations
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns


class Proposal(NamedTuple):
    """Propose permutations and maps, and signs of units.

    Attributes:
        permutations: of every group; matrices where it is turned.
        flips: per group, signs of the target's units in the target's order.
    """

    permutations: dict[str, Tensor]
    flips: dict[str, Tensor]


def place_blocks(standing: Standing, group: Group, blocks: Tensor | None = None) -> Proposal:
    r"""Choose whole blocks and what is inside together.

    .. math:: \max_\pi \sum_a \Bigl( s_{a \pi(a)} + \sum_k \max_{\kappa_k}
        \sum_i S^k_{(a, i), (\pi(a), \kappa_k(i))} \Bigr)

    A pair of blocks is worth what its own elements have in common (s) and what the best permutation inside it gains
    (one assignment per nested group k), each pair of units under its best signs. The rest of the network is held as
    it is, and so are signs of whole blocks; of unknown groups only what their order cannot change counts. Inside
    blocks with a continuous symmetry the best orthogonal map takes the place of the best permutation. With ``blocks``
    given, which of the target's stand where, only what is inside is chosen.
    """
    spec, permutations = standing.spec, standing.permutations
    children = spec.children(group.name)
    names = {group.name, *(child.name for child in children)}
    as_they_are = {n: p for n, p in identity_permutations(spec).items() if n in names}
    held = replace(standing, permutations={**permutations, **as_they_are})
    worth = _own_similarity(held, group)
    inside, choices = {}, {}
    discrete = [child for child in children if child.name not in standing.continuous]
    turned = [child for child in children if child.name in standing.continuous]
    rotating = {child.name: _pair_similarity(held, child)[0] for child in turned}
    for name, similarity in rotating.items():
        worth = worth + rotation_gain(similarity, standing.continuous[name])
    for child in discrete:
        similarity = _pair_similarity(held, child)
        pairs, choices[child.name] = similarity.max(0)
        best = hard_assignment(pairs)
        inside[child.name] = best
        worth = worth + pairs.gather(-1, best[..., None]).squeeze(-1).sum(-1)
    blocks = hard_assignment(worth) if blocks is None else blocks
    proposal, flips = {group.name: blocks.reshape(group.shape)}, {}
    here = torch.arange(len(blocks), device="cpu")
    for child in turned:
        rotations = best_rotation(rotating[child.name][here, blocks], standing.continuous[child.name])
        proposal[child.name] = torch.empty_like(rotations).index_copy(0, blocks, rotations)
        proposal[child.name] = proposal[child.name].reshape(*child.shape, child.size)
    for child in discrete:
        found = torch.empty(child.blocks, child.size, dtype=torch.long, device="cpu")
        chosen = inside[child.name][here, blocks]
        found[blocks] = chosen
        proposal[child.name] = found.reshape(child.shape)
        patterns = standing.patterns(child.name)
        if patterns.generators:
            pattern = choices[child.name][here, blocks].gather(-1, chosen[..., None]).squeeze(-1)
            flips[child.name] = flips_of(patterns, pattern, blocks, chosen).reshape(-1, *child.shape)
    return Proposal({**permutations, **proposal}, flips)


def flips_of(patterns: SignPatterns, pattern: Tensor, blocks: Tensor, units: Tensor) -> Tensor:
    """Turn chosen sign patterns into signs of units.

    Args:
        patterns: of the group.
        pattern: the number of each unit's pattern, (blocks, size).
        blocks, units: which block (blocks,) and unit (blocks, size) of the target stand there.

    Returns:
        (generators, blocks, size), in the target's order, where the patterns are in the reference's.
    """
    flips = torch.empty(len(patterns.generators), *units.shape, dtype=torch.float64, device="cpu")
    flips[:, blocks[:, None], units] = patterns.signs[pattern].movedim(-1, 0)
    return flips


def _own_similarity(standing: Standing, group: Group) -> Tensor:
    """Compare blocks by tensors without nested groups.

    Returns:
        (blocks, blocks).
    """
    spec = standing.spec
    nested = tensors_inside(standing, group)
    total = torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(group.name):
        if slot.tensor not in nested:
            for _, ours, theirs in unit_rows(standing, slot, beside_parent(standing, slot, group)):
                total += (ours[0] @ theirs[0].mT).double().cpu()
    return total


def _pair_similarity(standing: Standing, child: Group) -> Tensor:
    """Compare the units of any two blocks.

    Returns:
        (patterns, blocks, blocks, size, size).
    """
    count = child.blocks * child.size
    patterns = len(standing.patterns(child.name).signs)
    total = torch.zeros(patterns, count, count, dtype=torch.float64, device="cpu")
    for slot in standing.spec.slots_of(child.name):
        for signs, *pair in unit_rows(standing, slot, beside_parent(standing, slot, child)):
            ours, theirs = (units.reshape(count, -1) for units in pair)
            total += signs[:, None, None] * (ours @ theirs.mT).double().cpu()
    return total.reshape(patterns, child.blocks, child.size, child.blocks, child.size).transpose(2, 3)


def tensors_inside(standing: Standing, group: Group) -> set[str]:
    """Name the tensors that nested groups stand on."""
    spec = standing.spec
    return {slot.tensor for child in spec.children(group.name) for slot in spec.slots_of(child.name)}


def beside_parent(standing: Standing, slot: Slot, group: Group) -> tuple[Slot, ...]:
    """List the other slots, but not the parent's."""
    # A parent stands on the same positions as what is nested in it.
    return tuple(
        other for other in standing.beside(slot) if other.group != group.parent or other.axes != slot.axes
    )
