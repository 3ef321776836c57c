"""The zoo: small networks and what a human would write down as their permutation symmetries."""

from __future__ import annotations

from functools import cache

import torch

from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.zoo import (
    coincidences,
    convolution,
    experts,
    grids,
    grouped_queries,
    identities,
    linear,
    operations_on_units,
    relative_positions,
    sampling,
    sequence,
    windows,
    wiring,
)
from tests.zoo.case import Case, found_slots, noise, randomise, slots

CASES: list[Case] = [
    *linear.CASES,
    *operations_on_units.CASES,
    *convolution.CASES,
    *experts.CASES,
    *grids.CASES,
    *grouped_queries.CASES,
    *identities.CASES,
    *relative_positions.CASES,
    *sequence.CASES,
    *wiring.CASES,
    *windows.CASES,
    *coincidences.CASES,
    *sampling.CASES,
]

__all__ = ["CASES", "Case", "case", "found_slots", "noise", "randomise", "slots", "spec_of"]


def case(name: str) -> Case:
    """The case of this name."""
    return next(one for one in CASES if one.name == name)


@cache
def spec_of(case: Case) -> PermutationSpec:
    """The spec of a case with fresh weights, discovered once: it is the same whatever the weights are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return discover_symmetry(case.make(), case.make_inputs())
