from __future__ import annotations

import math

import pytest
import torch

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.matching.weights import coordinate_ascent
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.permutations import rescale_state
from sinkhorn_rebasin.symmetry import discover_rescaling
from tests.matching.rotations.turned_networks import (
    change_of_function,
    largest_difference,
    moved_at_random,
    problem,
)

NAMES = ["orthogonal", "linear", "bottlenecks", "rotary", "vit"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_a_random_element_of_the_whole_group_is_found(name: str, seed: int) -> None:
    given = problem(name, seed)
    target = moved_at_random(given)
    assert largest_difference(given.network.state_dict(), target) > 0.1
    assert change_of_function(given, given.network.state_dict(), target) < 1e-9
    found = weight_matching(given.network, target, given.spec, symmetry=given.continuous)
    assert set(found.maps) == set(given.continuous.names)
    moved = found.apply(target)
    assert largest_difference(given.network.state_dict(), moved) < 1e-9
    assert largest_difference(found.invert().apply(moved), target) < 1e-8


@pytest.mark.parametrize("name", [*NAMES[:-1], "block"])
def test_unrelated_networks_keep_their_function(name: str) -> None:
    given, other = problem(name, 0), problem(name, 1)
    kept = {key: tensor.clone() for key, tensor in other.network.state_dict().items()}
    for start in ("invariants", "identity"):
        found = weight_matching(
            given.network, other.network, given.spec, symmetry=given.continuous, start=start, restarts=2
        )
        moved = found.apply(other.network)
        assert change_of_function(given, kept, moved) < 1e-10
    assert largest_difference(kept, other.network.state_dict()) == 0


@pytest.mark.parametrize("name", ["orthogonal", "block"])
def test_maps_come_closer_than_permutations(name: str) -> None:
    given, other = problem(name, 0), problem(name, 1)
    alike = weight_matching(given.network, other.network, given.spec).objective[-1]
    turned = weight_matching(given.network, other.network, given.spec, symmetry=given.continuous, restarts=2)
    assert turned.objective[-1] > 1.05 * alike
    values = torch.tensor(turned.objective)
    assert bool((values.diff() >= -1e-9 * values[0].abs()).all())


def test_gains_that_are_not_one_are_refused_by_name() -> None:
    given = problem("vit")
    state = {**given.network.state_dict(), "norm.weight": torch.full((12,), 1.5, dtype=torch.float64)}
    with pytest.raises(ArchitectureError, match=r"gain 'norm.weight' of the target .* canonicalize"):
        weight_matching(given.network, state, given.spec, symmetry=given.continuous)


@pytest.mark.parametrize("seed", range(2))
def test_signs_of_other_groups_are_found_beside_maps(seed: int) -> None:
    given = problem("tanh", seed)
    rescaling = discover_rescaling(given.network, given.spec, given.inputs)
    shapes = {name: shape for name, shape in rescaling.shapes(given.spec, "sign").items() if name != "stem"}
    flips = {name: torch.randn(shape).sign() for name, shape in shapes.items()}
    target = rescale_state(moved_at_random(given), given.spec, rescaling, signs=flips)
    assert set(flips) == {"up/0", "up/1"}
    found = weight_matching(given.network, target, given.spec, rescaling=rescaling, symmetry=given.continuous)
    assert set(found.signs) == set(flips)
    assert largest_difference(given.network.state_dict(), found.apply(target)) < 1e-9


def test_half_precision_stays_what_it_is() -> None:
    given = problem("orthogonal")
    target = {name: tensor.bfloat16() for name, tensor in moved_at_random(given).items()}
    reference = {name: tensor.bfloat16() for name, tensor in given.network.state_dict().items()}
    moved = weight_matching(reference, target, given.spec, symmetry=given.continuous).apply(target)
    assert {tensor.dtype for tensor in moved.values()} == {torch.bfloat16}
    assert largest_difference(reference, moved) < 0.05


def test_the_anchored_start_is_the_second_of_several() -> None:
    """The first run of both is the same; here the anchored one comes closer."""
    given, other = problem("orthogonal", 0), problem("orthogonal", 1)
    states = given.network, other.network
    first, both = (
        weight_matching(*states, given.spec, symmetry=given.continuous, start="identity", restarts=restarts)
        for restarts in (1, 2)
    )
    assert both.objective[-1] > first.objective[-1]


def test_runs_that_cannot_catch_up_are_given_up_without_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    given, other = problem("bottlenecks", 0), problem("bottlenecks", 1)
    climbed, passes = CoordinateAscent.climb, []

    def noted(search: CoordinateAscent, groups: list, most: int, beat: float = -math.inf) -> Alignment:
        found = climbed(search, groups, most, beat)
        passes.append(len(found.objective))
        return found

    monkeypatch.setattr(CoordinateAscent, "climb", noted)
    ends, counts = [], []
    for given_up in (True, False):
        if not given_up:
            monkeypatch.setattr(coordinate_ascent, "_is_behind", lambda *_: False)
        passes.clear()
        states = given.network, other.network
        ends.append(weight_matching(*states, given.spec, symmetry=given.continuous, restarts=4).objective[-1])
        counts.append(sum(passes))
    assert ends[0] == ends[1]
    assert counts[0] < 0.8 * counts[1]
