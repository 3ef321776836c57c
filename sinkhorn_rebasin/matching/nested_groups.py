"""Matching whole blocks: attention heads or convolution groups together with what is permuted inside them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.invariants import seen_through
from sinkhorn_rebasin.matching.similarity import units_of
from sinkhorn_rebasin.permutations import Group, PermutationSpec, Slot, identity_permutations


def children_of(spec: PermutationSpec, group: Group) -> list[Group]:
    """The groups nested directly in a group."""
    return [other for other in spec.groups if other.parent == group.name]


def propose_blocks(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    permutations: dict[str, Tensor],
    unknown: Collection[str] = (),
) -> dict[str, Tensor]:
    r"""A permutation of whole blocks, and one inside each, chosen together.

    .. math:: \max_\pi \sum_a \Bigl( s_{a \pi(a)} + \sum_k \max_{\kappa_k}
        \sum_i S^k_{(a, i), (\pi(a), \kappa_k(i))} \Bigr)

    A pair of blocks is worth what its own elements have in common (s) and what the best permutation inside it gains
    (one assignment per nested group k). The rest of the network is held as it is; of ``unknown`` groups only what
    their order cannot change counts.
    """
    children = children_of(spec, group)
    names = {group.name, *(child.name for child in children)}
    held = {**permutations, **{n: p for n, p in identity_permutations(spec).items() if n in names}}
    worth = _own_similarity(reference, target, spec, group, children, held, unknown)
    inside = {}
    for child in children:
        pairs = _pair_similarity(reference, target, spec, child, held, unknown)
        best = hard_assignment(pairs)
        inside[child.name] = best
        worth = worth + pairs.gather(-1, best[..., None]).squeeze(-1).sum(-1)
    blocks = hard_assignment(worth)
    proposal = {group.name: blocks.reshape(group.shape)}
    for child in children:
        found = torch.empty(child.blocks, child.size, dtype=torch.long, device="cpu")
        found[blocks] = inside[child.name][torch.arange(len(blocks)), blocks]
        proposal[child.name] = found.reshape(child.shape)
    return {**permutations, **proposal}


def _own_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    children: list[Group],
    held: dict[str, Tensor],
    unknown: Collection[str],
) -> Tensor:
    """Inner products of blocks over tensors that no nested group stands on, (blocks, blocks)."""
    nested = {slot.tensor for child in children for slot in spec.slots_of(child.name)}
    total = torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(group.name):
        if slot.tensor not in nested and slot.tensor in spec.parameters:
            others = _beside(slot, spec, group)
            pair = seen_through(others, reference[slot.tensor], target[slot.tensor], held, unknown)
            ours, theirs = (units_of(tensor, slot)[0] for tensor in pair)
            total += (ours @ theirs.mT).double().cpu()
    return total


def _pair_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    child: Group,
    held: dict[str, Tensor],
    unknown: Collection[str],
) -> Tensor:
    """Inner products of a nested group's units for every pair of blocks, (blocks, blocks, size, size)."""
    count = child.blocks * child.size
    total = torch.zeros(count, count, dtype=torch.float64, device="cpu")
    for slot in spec.slots_of(child.name):
        if slot.tensor in spec.parameters:
            others = _beside(slot, spec, child)
            pair = seen_through(others, reference[slot.tensor], target[slot.tensor], held, unknown)
            ours, theirs = (units_of(tensor, slot).reshape(count, -1) for tensor in pair)
            total += (ours @ theirs.mT).double().cpu()
    return total.reshape(child.blocks, child.size, child.blocks, child.size).permute(0, 2, 1, 3)


def _beside(slot: Slot, spec: PermutationSpec, group: Group) -> tuple[Slot, ...]:
    """The other slots on a slot's tensor, but that of the parent, which stands on the same positions."""
    return tuple(
        other
        for other in spec.slots_on(slot.tensor)
        if other != slot and (other.group != group.parent or other.axes != slot.axes)
    )
