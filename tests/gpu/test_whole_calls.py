"""The calls of the front door on a device: they find what they find on the CPU, and stay where they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from tests.gpu.device import DEVICE, on_a_device

pytestmark = on_a_device
RECIPE = sr.Recipe(steps=4, cycles=1, trials=1, closing_steps=1, evaluate_every=2, points=3)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    return nn.Sequential(convolution, norm, nn.ReLU(), head).eval()


@pytest.fixture
def here() -> tuple[list[nn.Module], list[Any]]:
    networks = [network(seed) for seed in range(3)]
    torch.manual_seed(3)
    return networks, [(torch.randn(8, 3, 6, 6), torch.randint(3, (8,))) for _ in range(4)]


@pytest.fixture
def there(here: tuple[list[nn.Module], list[Any]]) -> tuple[list[nn.Module], list[Any]]:
    networks, batches = copy.deepcopy(here)
    return [each.to(DEVICE) for each in networks], move_to(batches, DEVICE)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert all(tensor.device == DEVICE for tensor in found.values())
    return all(torch.allclose(found[name].cpu(), expected[name], atol=1e-3) for name in expected)


def test_an_alignment_is_that_of_the_cpu(here: Any, there: Any) -> None:
    found, expected = (
        sr.align(*networks[:2], data, recipe=RECIPE, repair=True, progress=False)
        for networks, data in (there, here)
    )
    assert found.alignment.permutations.keys() == expected.alignment.permutations.keys()
    assert same(found.merge(0.5).state_dict(), expected.merge(0.5).state_dict())
    assert same(found.to_model().state_dict(), expected.to_model().state_dict())


@pytest.mark.slow
def test_several_networks_are_aligned(here: Any, there: Any) -> None:
    merged = [
        sr.align_many(networks, train=data, recipe=RECIPE).to_model(networks).state_dict()
        for networks, data in (there, here)
    ]
    assert same(*merged)


def test_an_update_is_carried(here: Any, there: Any) -> None:
    carried = [
        sr.carry(networks[0], networks[1], networks[2], data=data).apply(networks[2]).state_dict()
        for networks, data in (there, here)
    ]
    assert same(*carried)


def test_a_path_is_evaluated(here: Any, there: Any) -> None:
    losses = [
        sr.evaluate_path(tuple(networks[:2]), data, points=3).losses.tolist()
        for networks, data in (there, here)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_random_state_of_the_device_is_left_untouched() -> None:
    backend = torch.get_device_module(DEVICE)
    before = backend.get_rng_state()
    with untouched_randomness(forked=True):
        forked = backend.get_rng_state()
        backend.manual_seed(5)
    assert torch.equal(backend.get_rng_state(), before)
    assert not torch.equal(forked, before)


def test_networks_answer_where_the_batch_is(here: Any, there: Any) -> None:
    expected = sr.EnsembleTargets(here[0])(here[1][0])[1]
    for networks in (here[0], there[0]):
        found = sr.EnsembleTargets(networks)(there[1][0])[1]
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)
    assert all(tensor.device.type == "cpu" for tensor in here[0][0].parameters())
