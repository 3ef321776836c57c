from __future__ import annotations

from itertools import permutations as orders

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.matching.weights.similarity import signed_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry


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
