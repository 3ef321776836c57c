from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.matching import activation_matching
from tests.matching.rotations.turned_networks import (
    change_of_function,
    largest_difference,
    moved_at_random,
    problem,
)


@pytest.mark.parametrize("name", ["orthogonal", "linear", "bottlenecks", "vit"])
def test_a_random_element_of_the_whole_group_is_found(name: str) -> None:
    given = problem(name)
    target = moved_at_random(given)
    data = [torch.randn(40, *given.inputs.shape[1:], dtype=torch.float64) for _ in range(2)]
    found = activation_matching(given.network, target, given.spec, data=data, symmetry=given.continuous)
    assert set(found.maps) == set(given.continuous.names)
    assert largest_difference(given.network.state_dict(), found.apply(target)) < 1e-9
    heads = {group for group in given.spec.names if "qkv" in group}
    assert set(found.weight_matched) == heads


def test_unrelated_networks_keep_their_function() -> None:
    given, other = problem("vit", 0), problem("vit", 1)
    kept = {key: tensor.clone() for key, tensor in other.network.state_dict().items()}
    found = activation_matching(
        given.network, other.network, given.spec, data=[given.inputs], symmetry=given.continuous
    )
    assert change_of_function(given, kept, found.apply(other.network)) < 1e-10
    assert largest_difference(kept, other.network.state_dict()) == 0


def test_every_place_weighs_the_same() -> None:
    """What one layer adds to the stream may be larger by any factor: the map stays."""
    given, other = problem("orthogonal", 0), problem("orthogonal", 1)
    data, maps = [torch.randn(30, 5, dtype=torch.float64)], []
    for factor in (1.0, 50.0):
        state = {
            name: factor * tensor if name.startswith("down.1") else tensor
            for name, tensor in other.network.state_dict().items()
        }
        found = activation_matching(given.network, state, given.spec, data=data, symmetry=given.continuous)
        maps.append(found.maps["stem"])
    torch.testing.assert_close(*maps)
