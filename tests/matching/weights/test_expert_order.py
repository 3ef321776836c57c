"""Experts come into the order that brute force finds, by gates or Gram matrices, whatever is inside them."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import nn

from experiments.models.mixture import MixtureLM
from sinkhorn_rebasin import weight_matching
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.expert_order import place_experts
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    identity_permutations,
    inverse,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.symmetry import discover_symmetry

TOKENS = torch.arange(14).reshape(2, 7) % 11
By = Literal["gates", "grams"]


def mixture(seed: int) -> tuple[MixtureLM, PermutationSpec]:
    torch.manual_seed(seed)
    network = MixtureLM(11, embedded=3, width=5, experts=3, inside=4, reach=2)
    return network, discover_symmetry(network, TOKENS)


def experts_of(spec: PermutationSpec) -> str:
    return next(group.name for group in spec.groups if spec.children(group.name))


@pytest.mark.parametrize("by", ["gates", "grams"])
def test_a_planted_order_is_found_with_what_is_inside(by: By) -> None:
    network, spec = mixture(0)
    planted = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    target = permute_state(network.state_dict(), spec, planted)
    found = weight_matching(network, target, spec, start=by).permutations
    assert all(torch.equal(found[name], order) for name, order in inverse(spec, planted).items())


@pytest.mark.parametrize("by", ["gates", "grams"])
def test_the_order_is_the_best_of_all(by: By) -> None:
    (first, spec), (second, _) = mixture(0), mixture(3)
    standing = Standing(tensors_of(first), tensors_of(second), spec, identity_permutations(spec))
    search = CoordinateAscent(standing, torch.Generator().manual_seed(0))
    place_experts(search, by)

    def gates(order: tuple[int, ...]) -> float:
        rows = [torch.cat([net.gate.weight, net.gate.bias[:, None]], 1) for net in (first, second)]
        ours, theirs = (each - each.mean(0) for each in rows)
        return float((ours - theirs[list(order)]).square().sum().detach())

    def grams(order: tuple[int, ...]) -> float:
        total = 0.0
        for ours, theirs in zip(range(3), order, strict=True):
            a, other = (torch.cat([n.up[e]], 1) for n, e in ((first, ours), (second, theirs)))
            b, far = first.down[ours], second.down[theirs]
            bias = first.up_bias[ours].square().sum() - second.up_bias[theirs].square().sum()
            total += float((a.T @ a - other.T @ other).square().sum().detach())
            total += float((b @ b.T - far @ far.T).square().sum().detach()) + float(bias.square().detach())
        return total

    best = min(itertools.permutations(range(3)), key=gates if by == "gates" else grams)
    assert search.standing.permutations[experts_of(spec)].tolist() == list(best)


def test_networks_without_experts_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    spec = discover_symmetry(net, torch.randn(2, 3))
    with pytest.raises(SpecError, match=r"experts' gates but got the groups \['0'\]"):
        weight_matching(net, net, spec, start="gates")
