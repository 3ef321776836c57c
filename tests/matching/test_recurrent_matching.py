"""Recurrent units are matched with their signs, by their weights and by what they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.matching import Alignment, activation_matching, weight_matching
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    inverse,
    permute_state,
    random_permutations,
    rescale_state,
)
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.recurrent_networks import INPUTS, RECURRENT, STEPS, recurrent
from tests.rescaled_networks import factors
from tests.symmetry.witness import difference, loaded

WIDTH = 6
Match = Callable[[nn.Module, nn.Module, PermutationSpec, RescalingSpec | None, Tensor], Alignment]


def by_weights(
    reference: nn.Module, target: nn.Module, spec: PermutationSpec, rescaling: RescalingSpec | None, x: Tensor
) -> Alignment:
    return weight_matching(reference, target, spec, rescaling=rescaling, restarts=3)


def by_activations(
    reference: nn.Module, target: nn.Module, spec: PermutationSpec, rescaling: RescalingSpec | None, x: Tensor
) -> Alignment:
    return activation_matching(reference, target, spec, data=[x[:9], x[9:]], rescaling=rescaling)


def planted(
    name: str, seed: int = 0
) -> tuple[
    nn.Module, nn.Module, PermutationSpec, RescalingSpec, Tensor, dict[str, Tensor], dict[str, Tensor]
]:
    """A network, the same in random order with random signs, and what was done to it."""
    net, x = recurrent(name, WIDTH, seed)
    spec = discover_symmetry(net, x[:2])
    rescaling = discover_rescaling(net, spec, x[:2])
    signs = factors(spec, rescaling, seed + 5, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed + 7))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    return net, loaded(net, moved), spec, rescaling, x, shuffle, signs


@pytest.mark.parametrize("match", [by_weights, by_activations])
@pytest.mark.parametrize("name", RECURRENT)
def test_planted_permutations_and_signs_are_recovered_exactly(name: str, match: Match) -> None:
    net, target, spec, rescaling, x, shuffle, signs = planted(name)
    found = match(net, target, spec, rescaling, x)
    right = inverse(spec, shuffle)
    assert {n: p.tolist() for n, p in found.permutations.items()} == {n: p.tolist() for n, p in right.items()}
    assert found.weight_matched == ()
    for group, planted_signs in signs.items():
        assert found.signs[group].tolist() == planted_signs[:, shuffle[group]].tolist()
    assert any(bool((one < 0).any()) for one in found.signs.values())
    back = found.apply(target)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("match", [by_weights, by_activations])
@pytest.mark.parametrize("name", RECURRENT)
def test_the_matched_network_is_the_targets_function(name: str, match: Match) -> None:
    net, x = recurrent(name, WIDTH, 0)
    other, _ = recurrent(name, WIDTH, 1)
    spec = discover_symmetry(net, x[:2])
    rescaling = discover_rescaling(net, spec, x[:2])
    found = match(net, other, spec, rescaling, x)
    assert any(bool((one < 0).any()) for one in found.signs.values())
    fresh = torch.randn(4, STEPS + 2, INPUTS).double()
    other = other.double()
    assert difference(other, found.apply(other), fresh) < 1e-12


@pytest.mark.parametrize("name", RECURRENT)
def test_without_rescalings_recurrent_units_are_matched_by_what_they_do(name: str) -> None:
    net, x = recurrent(name, WIDTH)
    spec = discover_symmetry(net, x[:2])
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    target = loaded(net, permute_state(net.state_dict(), spec, shuffle))
    found = by_activations(net, target, spec, None, x)
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())
    assert (found.weight_matched, found.signs) == ((), {})
