from __future__ import annotations

from itertools import permutations as orders

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.weights.similarity import signed_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.matching.rotations.turned_networks import Residual


def test_similarity_under_a_sign_is_the_best_over_all_orders_of_an_unknown_group() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2)]
    spec = discover_symmetry(networks[0], torch.randn(2, 2))
    rescaling = discover_rescaling(networks[0], spec, torch.randn(2, 2))
    one, two = (tensors_of(network) for network in networks)
    standing = Standing(one, two, spec, identity_permutations(spec), frozenset({"1"}), rescaling)
    signed = signed_similarity(standing, spec["0"])[:, 0]
    incoming = one["0.weight"] @ two["0.weight"].T + torch.outer(one["0.bias"], two["0.bias"])
    for sign, similarity in zip((1, -1), signed, strict=True):
        for i, j in ((i, j) for i in range(3) for j in range(3)):
            column = sign * two["1.weight"][:, j]
            outgoing = max(float(one["1.weight"][:, i] @ column[list(order)]) for order in orders(range(4)))
            assert float(similarity[i, j]) == pytest.approx(sign * float(incoming[i, j]) + outgoing, abs=1e-6)


def test_signs_of_a_linear_stream_bring_networks_closer() -> None:
    """On average over pairs, since each run ends at an optimum of its own."""
    torch.manual_seed(0)
    pairs = [[Residual(torch.relu, 8, 16) for _ in range(2)] for _ in range(12)]
    spec = discover_symmetry(pairs[0][0], torch.randn(2, 5))
    rescaling = discover_rescaling(pairs[0][0], spec, torch.randn(2, 5))
    assert {one.group for one in rescaling.generators if one.kind == "sign"} == {"stem"}
    without, matched = (
        sum(weight_matching(*pair, spec, rescaling=signs).objective[-1] for pair in pairs)
        for signs in (None, rescaling)
    )
    assert matched > 1.04 * without
