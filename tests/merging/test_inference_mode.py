"""Merges that are made in inference mode can be trained like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import LearnedComplex, LearnedCurve
from sinkhorn_rebasin.merging import match_outputs
from tests.taken_networks import Net, networks


def hidden(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def three() -> tuple[list[Net], sr.ManyAlignment]:
    a, b, spec = networks()
    return [a, b, a], sr.match_many([a, b, a], spec)


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(16, 3), torch.randint(2, (16,)))]


def mean(**options: Any) -> nn.Module:
    nets, many = three()
    return many.to_model(nets, **options)


MADE: dict[str, Callable[[], nn.Module]] = {
    "mean": mean,
    "repaired mean": lambda: mean(repair=data()),
    "zipit": lambda: sr.zipit(*networks(), data=data()).network,
    "pleas": lambda: sr.pleas(*networks(), data=data(), budget=1.5).network,
    "separate": lambda: sr.pleas(*networks(), data=data()).separate(),
    "fedma": lambda: sr.fedma([hidden(4), hidden(6)], torch.randn(4, 3)),
    "pfnm": lambda: sr.pfnm([hidden(4), hidden(6)], torch.randn(4, 3)),
    "joint": lambda: sr.JointRebasin(three()[0], spec=networks()[2]).merge(),
    "pair": lambda: sr.SinkhornRebasin(*networks()[:2], spec=networks()[2]).merge(0.5),
    "curve": lambda: LearnedCurve(*networks()[:2]),
    "complex": lambda: LearnedComplex(networks()[:2]),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_in_inference_mode_holds_plain_tensors(name: str) -> None:
    with torch.inference_mode():
        made = MADE[name]()
    assert not [name for name, tensor in made.state_dict(keep_vars=True).items() if tensor.is_inference()]
    assert name == "complex" or any(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize(
    "method",
    [
        lambda *pair: sr.sinkhorn_matching(*pair, data=data(), loss="midpoint", steps=3),
        lambda *pair: sr.straight_through(*pair, data=data(), epochs=1),
        lambda *pair: match_outputs(*pair, data=data(), steps=3),
    ],
)
def test_what_learns_finds_the_same_in_inference_mode(method: Callable[..., sr.Alignment]) -> None:
    pair = networks()
    expected = method(*pair)
    with torch.inference_mode():
        found = method(*pair)
    assert found.objective == expected.objective
    assert all(torch.equal(found.permutations[name], order) for name, order in expected.permutations.items())
