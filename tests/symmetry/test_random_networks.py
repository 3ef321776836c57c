"""Random networks of every family: permuted at random they compute what they computed before."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings

from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.random_networks import Block, Plan, alone, build, inputs_of, plans, random_plan
from tests.random_networks.network import in_double_precision
from tests.random_networks.plan import KINDS
from tests.symmetry.witness import difference
from tests.symmetry.witness import in_double_precision as widened_inputs

FAMILIES = {family for kind in KINDS.values() for family in kind.families}
drawn: Counter[str] = Counter()


def change_of(plan: Plan) -> tuple[float, PermutationSpec]:
    """The output's largest relative change in double precision when all groups are permuted at random."""
    network, inputs = build(plan), inputs_of(plan)
    spec = discover_symmetry(network, inputs)
    wide = in_double_precision(network)
    generator = torch.Generator().manual_seed(plan.seed)
    state = permute_state(wide.state_dict(), spec, random_permutations(spec, generator=generator))
    return difference(wide, state, widened_inputs(inputs)), spec


@seed(0)
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plans())
def check_many(plan: Plan) -> None:
    check_one(plan)


def families_of(plan: Plan) -> set[str]:
    return {family for block in plan.blocks for family in KINDS[block.kind].families}


def check_one(plan: Plan) -> None:
    drawn.update(families_of(plan))
    change, spec = change_of(plan)
    assert change < 1e-9, f"{plan}\n{spec}"


@pytest.mark.filterwarnings("ignore:Using padding=.same.:UserWarning")
def test_what_is_claimed_of_random_networks_holds_and_every_family_is_among_them() -> None:
    drawn.clear()
    check_many()
    # So few draws leave some families out: the first plans of a seed that have one of them are checked as well.
    for plan in map(random_plan, range(1000)):
        if families_of(plan) - set(drawn):
            check_one(plan)
    assert set(drawn) == FAMILIES, FAMILIES - set(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(3))
def test_what_is_claimed_of_thousands_of_random_networks_holds(thousand: int) -> None:
    for number in range(1000 * thousand, 1000 * thousand + 1000):
        plan = random_plan(number)
        change, spec = change_of(plan)
        assert change < 1e-9, f"{plan}\n{spec}"


def test_the_printed_plan_is_enough_to_build_the_network_again() -> None:
    for number in range(10):
        plan = random_plan(number)
        copy = eval(repr(plan), {"Plan": Plan, "Block": Block})
        assert copy == plan
        first, second = build(plan).state_dict(), build(copy).state_dict()
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert torch.equal(inputs_of(plan), inputs_of(copy))


def test_a_wrong_claim_is_noticed() -> None:
    plan = alone("moved", how="roll_added")
    network, inputs = build(plan), inputs_of(plan)
    wide = in_double_precision(network)
    state = dict(wide.state_dict())
    for name in ("blocks.0.a.weight", "blocks.0.a.bias"):
        state[name] = state[name].flip(0)
    state["blocks.0.b.weight"] = state["blocks.0.b.weight"].roll(1, 1)
    assert difference(wide, state, widened_inputs(inputs)) > 1e-3
