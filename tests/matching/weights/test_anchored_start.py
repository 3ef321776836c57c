from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations, inverse, permute_state, random_permutations
from tests.matching.rotations.turned_networks import problem


@pytest.mark.parametrize("name", ["orthogonal", "vit"])
def test_what_fixed_bases_pin_down_finds_a_planted_permutation(name: str) -> None:
    given = problem(name)
    planted = random_permutations(given.spec)
    reference = tensors_of(given.network)
    target = permute_state(reference, given.spec, planted)
    identity = identity_permutations(given.spec)
    search = CoordinateAscent(Standing(reference, target, given.spec, identity), torch.Generator())
    search.anchor(given.spec.groups)
    answer = inverse(given.spec, planted)
    assert all(torch.equal(order, answer[group]) for group, order in search.standing.permutations.items())


def test_the_first_group_is_placed_by_frozen_axes_alone() -> None:
    """Weights between groups are noise here: they must not have a say in the stream's order."""
    given = problem("orthogonal")
    reference = tensors_of(given.network)
    planted = random_permutations(given.spec)
    target = permute_state(reference, given.spec, planted)
    noisy = {
        name: 100 * torch.randn_like(tensor) if name.startswith(("up", "down")) else tensor
        for name, tensor in target.items()
    }
    for name in ("down.0.bias", "down.1.bias"):
        noisy[name] = target[name]
    identity = identity_permutations(given.spec)
    search = CoordinateAscent(Standing(reference, noisy, given.spec, identity), torch.Generator())
    search.anchor(given.spec.groups)
    assert torch.equal(search.standing.permutations["stem"], inverse(given.spec, planted)["stem"])


def test_the_second_of_several_restarts_is_anchored(monkeypatch: pytest.MonkeyPatch) -> None:
    given, other, calls = problem("orthogonal", 0), problem("orthogonal", 1), []
    monkeypatch.setattr(CoordinateAscent, "anchor", lambda self, groups: calls.append(len(groups)))
    weight_matching(given.network, other.network, given.spec)
    assert calls == []
    weight_matching(given.network, other.network, given.spec, restarts=3)
    assert calls == [len(given.spec.groups)]
