"""Barriers between every two of several aligned networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.merging import match_many, pairwise_barriers
from sinkhorn_rebasin.merging.mean_network import modules_with
from tests.front.pairs import batches, samples, trained
from tests.matcher_contract import equal


def _trained() -> list[nn.Module]:
    return [trained(seed) for seed in range(3)]


def test_barriers_are_those_of_each_pair_of_aligned_networks() -> None:
    networks, data = _trained(), batches(200)
    spec = sr.discover_symmetry(networks[0], torch.ones(2, 2))
    many = match_many(networks, spec)
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in networks]
    found = many.barriers(networks, data, points=5)
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0).all()
    assert found.max() > 0.01
    states = many.apply(networks)
    for p, q in ((0, 1), (1, 2), (0, 2)):
        path = sr.evaluate_path(sr.LinearPath(networks[0], states[p], states[q]), data, points=5)
        assert found[p, q].item() == pytest.approx(float(path.barrier), rel=1e-5, abs=1e-7)
    assert all(equal(old, net.state_dict()) for old, net in zip(before, networks, strict=True))


def test_statistics_are_measured_or_repaired_on_every_path() -> None:
    networks, data = _trained()[:2], batches(200)
    spec = sr.discover_symmetry(networks[0], torch.ones(2, 2))
    found = pairwise_barriers(networks, spec, data, statistics=data, repair=True)
    prepare = sr.RepairAlongPath(networks[1], networks[0], spec, data)
    path = sr.evaluate_path(tuple(networks), data, points=5, prepare=prepare)
    assert found[0, 1].item() == pytest.approx(float(path.barrier), rel=1e-5)
    assert found[0, 1] != pairwise_barriers(networks, spec, data)[0, 1]


def test_a_mean_of_states_runs_as_the_module_among_them() -> None:
    networks, x = _trained(), samples()[0]
    many = match_many(networks, sr.discover_symmetry(networks[0], torch.ones(2, 2)))
    mixed = [networks[0].state_dict(), networks[1], networks[2].state_dict()]
    expected = torch.func.functional_call(networks[1], many.merge(networks), x)
    torch.testing.assert_close(many.to_model(mixed)(x), expected)
    repaired = many.to_model(mixed, [0.5, 0.25, 0.25], repair=[x])
    first, *others = modules_with(networks, many.apply(networks))
    plain = many.to_model(networks, [0.5, 0.25, 0.25])
    again = sr.repair(plain, first, others, many.spec, [x], at=[0.5, 0.25, 0.25])
    torch.testing.assert_close(repaired(x), again(x))
    assert not torch.allclose(repaired(x), plain(x))
    with pytest.raises(ArchitectureError, match="a module among the networks"):
        many.to_model([net.state_dict() for net in networks])
