from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching import weight_matching
from tests.matching.rotations.turned_networks import (
    change_of_function,
    largest_difference,
    moved_at_random,
    problem,
)

NAMES = ["orthogonal", "linear", "bottlenecks", "vit"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_a_random_element_of_the_whole_group_is_found(name: str, seed: int) -> None:
    given = problem(name, seed)
    target = moved_at_random(given)
    assert largest_difference(given.network.state_dict(), target) > 0.1
    assert change_of_function(given, given.network.state_dict(), target) < 1e-9
    found = weight_matching(given.network, target, given.spec, symmetry=given.continuous)
    assert set(found.maps) == set(given.continuous.names)
    assert largest_difference(given.network.state_dict(), found.apply(target)) < 1e-9


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", ["orthogonal", "vit"])
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
