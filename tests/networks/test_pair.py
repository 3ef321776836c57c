"""Two frozen networks: what the pair holds, runs and gives back, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.pair import NetworkPair


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    return first.eval(), second.eval()


def test_states_are_those_of_the_networks_and_no_parameter_is_left() -> None:
    first, second = networks()
    pair = NetworkPair(first, second)
    assert not list(pair.parameters())
    for state, network in ((pair.reference_state(), first), (pair.target_state(), second)):
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_a_state_runs_as_its_network_does() -> None:
    first, second = networks()
    x = torch.randn(5, 3)
    pair = NetworkPair(first, second).eval()
    torch.testing.assert_close(pair.run(pair.target_state(), x), second(x))
    in_training = nn.functional.batch_norm(second[0](x), None, None, second[1].weight, second[1].bias, True)
    torch.testing.assert_close(pair.train().run(pair.target_state(), x), second[2](in_training))


def test_a_plain_network_has_the_traits_of_the_target() -> None:
    first, second = networks()
    second[0].weight.requires_grad_(False)
    plain = NetworkPair(first, second).plain(dict(first.state_dict()))
    flags = {name: parameter.requires_grad for name, parameter in plain.named_parameters()}
    assert flags == {name: parameter.requires_grad for name, parameter in second.named_parameters()}
    assert torch.equal(plain[0].weight, first[0].weight)
    assert not plain.training


def test_networks_that_differ_in_more_than_weights_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"'0.weight'"):
        NetworkPair(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(ArchitectureError, match=r"float64"):
        NetworkPair(nn.Linear(3, 2), nn.Linear(3, 2).double())
