"""Matching whole blocks: attention heads or convolution groups together with what is permuted inside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.weights.similarity import unit_rows
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, Slot, identity_permutations
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns


class Proposal(NamedTuple):
    """New permutations of all groups, and the sign changes of units, in the target's order, that go with them."""

    permutations: dict[str, Tensor]
    flips: dict[str, Tensor]


def place_blocks(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    permutations: Permutations,
    unknown: Collection[str] = (),
    rescaling: RescalingSpec = NO_RESCALING,
) -> Proposal:
    r"""A permutation of whole blocks, and one inside each, chosen together.

    .. math:: \max_\pi \sum_a \Bigl( s_{a \pi(a)} + \sum_k \max_{\kappa_k}
        \sum_i S^k_{(a, i), (\pi(a), \kappa_k(i))} \Bigr)

    A pair of blocks is worth what its own elements have in common (s) and what the best permutation inside it gains
    (one assignment per nested group k), each pair of units under its best signs. The rest of the network is held as
    it is, and so are signs of whole blocks; of ``unknown`` groups only what their order cannot change counts.
    """
    children = spec.children(group.name)
    names = {group.name, *(child.name for child in children)}
    held = {**permutations, **{n: p for n, p in identity_permutations(spec).items() if n in names}}
    worth = _own_similarity(reference, target, spec, group, children, held, unknown, rescaling)
    inside, choices = {}, {}
    for child in children:
        similarity = _pair_similarity(reference, target, spec, child, held, unknown, rescaling)
        pairs, choices[child.name] = similarity.max(0)
        best = hard_assignment(pairs)
        inside[child.name] = best
        worth = worth + pairs.gather(-1, best[..., None]).squeeze(-1).sum(-1)
    blocks = hard_assignment(worth)
    proposal, flips = {group.name: blocks.reshape(group.shape)}, {}
    for child in children:
        here = torch.arange(len(blocks))
        found = torch.empty(child.blocks, child.size, dtype=torch.long, device="cpu")
        chosen = inside[child.name][here, blocks]
        found[blocks] = chosen
        proposal[child.name] = found.reshape(child.shape)
        patterns = SignPatterns.of(rescaling, child.name)
        if patterns.generators:
            pattern = choices[child.name][here, blocks].gather(-1, chosen[..., None]).squeeze(-1)
            flips[child.name] = flips_of(patterns, pattern, blocks, chosen).reshape(-1, *child.shape)
    return Proposal({**permutations, **proposal}, flips)


def flips_of(patterns: SignPatterns, pattern: Tensor, blocks: Tensor, units: Tensor) -> Tensor:
    """Signs of the target's units, (generators, blocks, size), from the patterns chosen in the reference's order.

    Args:
        patterns: of the group.
        pattern: the number of each unit's pattern, (blocks, size).
        blocks, units: which block (blocks,) and unit (blocks, size) of the target stand there.
    """
    flips = torch.empty(len(patterns.generators), *units.shape, dtype=torch.float64, device="cpu")
    flips[:, blocks[:, None], units] = patterns.signs[pattern].movedim(-1, 0)
    return flips


def _own_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    children: Sequence[Group],
    held: Permutations,
    unknown: Collection[str],
    rescaling: RescalingSpec,
) -> Tensor:
    """Inner products of blocks over tensors that no nested group stands on, (blocks, blocks)."""
    nested = {slot.tensor for child in children for slot in spec.slots_of(child.name)}
    total = torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(group.name):
        if slot.tensor not in nested:
            others = _beside(slot, spec, group)
            for _, ours, theirs in unit_rows(reference, target, spec, slot, others, held, unknown, rescaling):
                total += (ours[0] @ theirs[0].mT).double().cpu()
    return total


def _pair_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    child: Group,
    held: Permutations,
    unknown: Collection[str],
    rescaling: RescalingSpec,
) -> Tensor:
    """Inner products of a nested group's units under every sign pattern, (patterns, blocks, blocks, size, size)."""
    count = child.blocks * child.size
    patterns = len(SignPatterns.of(rescaling, child.name).signs)
    total = torch.zeros(patterns, count, count, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(child.name):
        others = _beside(slot, spec, child)
        for signs, *pair in unit_rows(reference, target, spec, slot, others, held, unknown, rescaling):
            ours, theirs = (units.reshape(count, -1) for units in pair)
            total += signs[:, None, None] * (ours @ theirs.mT).double().cpu()
    return total.reshape(patterns, child.blocks, child.size, child.blocks, child.size).transpose(2, 3)


def _beside(slot: Slot, spec: PermutationSpec, group: Group) -> tuple[Slot, ...]:
    """The other slots on a slot's tensor, but that of the parent, which stands on the same positions."""
    return tuple(
        other
        for other in spec.slots_on(slot.tensor)
        if other != slot and (other.group != group.parent or other.axes != slot.axes)
    )
