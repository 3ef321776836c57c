"""Experts of a mixture put in order by their gates or Gram matrices, before the units inside are matched."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.nested_groups import beside_parent, place_blocks, tensors_inside
from sinkhorn_rebasin.matching.weights.similarity import unit_rows
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Group

EXPERT_STARTS = ("gates", "grams")


def place_experts(search: CoordinateAscent, by: str) -> None:
    r"""Order experts by what no inner order changes.

    By gates, what experts own outside of their units, less its mean over all experts, which a softmax over experts
    does not see. By Gram matrices,

    .. math:: \min_\pi \sum_a \lVert A_a^\top A_a - A_{\pi(a)}'^\top A_{\pi(a)}' \rVert^2
        + \lVert B_a B_a^\top - B_{\pi(a)}' B_{\pi(a)}'^\top \rVert^2

    with A what comes into the units of an expert and B what goes out. What is inside is then matched, expert by
    expert. The order of all other groups is as the search has it.

    Args:
        search: of weight matching; it goes on from there.
        by: ``"gates"`` or ``"grams"``.

    Source: Gram matrices of experts: "On Linear Mode Connectivity of Mixture-of-Experts Architectures" (2025).
    """
    for group in search.standing.spec.groups:
        if group.parent is None and search.standing.spec.children(group.name):
            worth = (_of_gates if by == "gates" else _of_grams)(_in_order(search.standing, group), group)
            if bool(worth.any()):
                search.accept(place_blocks(search.standing, group, hard_assignment(worth)))


def _in_order(standing: Standing, group: Group) -> Standing:
    """Return the standing with one family unmoved."""
    names = {each.name for each in standing.placed_with(group)}
    as_they_are = {
        each.name: torch.arange(each.size).expand(each.blocks, -1).reshape(each.shape)
        for each in standing.spec.groups
        if each.name in names
    }
    return replace(standing, permutations={**standing.permutations, **as_they_are})


def _of_gates(standing: Standing, group: Group) -> Tensor:
    """Compare centered gates, (blocks, blocks)."""
    inside = tensors_inside(standing, group)
    total = torch.zeros(group.size, group.size, dtype=torch.float64)
    for slot in standing.spec.slots_of(group.name):
        if slot.tensor not in inside:
            for _, *pair in unit_rows(standing, slot, beside_parent(standing, slot, group)):
                ours, theirs = (rows[0].double().cpu() for rows in pair)
                total += (ours - ours.mean(0)) @ (theirs - theirs.mean(0)).mT
    return total


def _of_grams(standing: Standing, group: Group) -> Tensor:
    r"""Compare Gram matrices, (blocks, blocks).

    :math:`\lVert A^\top A - A'^\top A' \rVert^2` is :math:`-2 \lVert A A'^\top \rVert^2` and what no order changes.
    """
    total = torch.zeros(group.size, group.size, dtype=torch.float64)
    for child in standing.spec.children(group.name):
        for slot in standing.spec.slots_of(child.name):
            for _, *pair in unit_rows(standing, slot, beside_parent(standing, slot, child)):
                ours, theirs = (rows.double().cpu().reshape(group.size, -1, rows.shape[-1]) for rows in pair)
                for number, units in enumerate(ours):
                    total[number] += (units @ theirs.mT).square().sum((1, 2))
    return total
