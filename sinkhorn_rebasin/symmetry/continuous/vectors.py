"""Which vectors turn with a group, as shifts of norms do, and which must be held, as their gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import units_first
from sinkhorn_rebasin.symmetry.continuous.claims import Claim
from sinkhorn_rebasin.symmetry.continuous.proof import Held, moved, random_element
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import gradients_of
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

NEAR = 1e-7
"""Relative difference between two gradients that are the same."""


def with_turning_vectors(
    trials: Trials, claims: Sequence[Claim], vectors: Mapping[str, Sequence[Slot]], held: Held
) -> list[Claim]:
    r"""Complete claims by those vectors of their groups that turn with them.

    Where :math:`f(W, v) = f(XW, Xv)` for all v, the gradients by v at both places agree:

    .. math:: \nabla_v f(W, v) = X^\top\, \nabla_v f(XW, Xv)

    With v at one, which X fixes, one backward pass at either place decides for all vectors. Others are left out.
    """
    names = {slot.tensor for slots in vectors.values() for slot in slots}
    if not names:
        return list(claims)
    symmetries = [one.symmetry(trials.spec, True, one.linear) for one in claims]
    maps = {one.group.name: random_element(trials, one) for one in symmetries}
    state = held.at(trials.weights(), trials.network)
    before_draw = trials.generator.get_state()
    before = _gradients(trials, state, names, before_draw)
    after = _gradients(trials, moved(trials, state, symmetries, maps), names, before_draw)
    largest = max(float(gradient.abs().max()) for gradient in before.values())

    def turns(slot: Slot, matrix: Tensor) -> bool:
        here, there = (units_first(found[slot.tensor], slot) for found in (before, after))
        difference = float((here - matrix.to(here).mT @ there).abs().max())
        return difference <= NEAR * max(float(here.abs().max()), NEAR * largest)

    completed = []
    for claim in claims:
        matrix = maps[claim.group]
        turning = {}
        for slot in vectors[claim.group]:
            if turns(slot, matrix):
                turning[slot] = 1
            elif claim.linear and turns(slot, torch.linalg.inv(matrix).mT):
                turning[slot] = -1
        completed.append(claim.with_vectors(turning))
    return completed


def _gradients(trials: Trials, state: State, names: set[str], before_draw: Tensor) -> dict[str, Tensor]:
    """Gradients by these vectors, with inputs and weights of the outputs drawn from this state on."""
    trials.generator.set_state(before_draw)
    found = gradients_of(trials.network, state, names, trials.example_inputs, trials.generator) or {}
    zeros = {name: torch.zeros_like(state[name]) for name in names}
    return zeros | {name: gradient.to_dense() for name, gradient in found.items() if gradient is not None}
