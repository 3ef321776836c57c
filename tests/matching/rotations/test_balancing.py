from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.matching.rotations.balancing import balanced
from sinkhorn_rebasin.permutations.balancing import turned
from tests.matching.rotations.turned_networks import (
    change_of_function,
    largest_difference,
    problem,
    random_maps,
)


@pytest.mark.parametrize("name", ["linear", "bottlenecks", "vit"])
def test_no_element_of_the_group_makes_the_norm_less(name: str) -> None:
    given = problem(name)
    parameters = tuple(given.spec.parameters)
    state, _ = balanced(given.network.state_dict(), given.continuous)
    assert change_of_function(given, given.network.state_dict(), state) < 1e-10

    def norm(tensors: dict[str, torch.Tensor]) -> float:
        return sum(float(tensors[name].square().sum()) for name in parameters)

    least = norm(state)
    assert least < norm(given.network.state_dict()) * (1 - 1e-3)
    for symmetry in given.continuous.symmetries:
        if symmetry.kind == "linear":
            drawn = random_maps(given.continuous)[symmetry.group.name]
            near = torch.eye(symmetry.group.size, dtype=torch.float64) + 1e-2 * drawn
            assert norm(turned(state, symmetry, near)) >= least * (1 - 1e-12)


def test_the_map_leads_to_the_balanced_network_and_balancing_again_stays() -> None:
    given = problem("bottlenecks")
    state, maps = balanced(given.network.state_dict(), given.continuous)
    again = dict(given.network.state_dict())
    for symmetry in given.continuous.symmetries:
        again = turned(again, symmetry, maps[symmetry.group.name])
    assert largest_difference(state, again) < 1e-11
    assert largest_difference(state, balanced(state, given.continuous)[0]) < 1e-11
