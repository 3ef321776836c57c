from __future__ import annotations

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.merging import UnitPrior, pfnm
from tests.merging.owned_networks import permuted_copies, with_units_more

SHARP = UnitPrior(sigma=1e-3, sigma_0=10.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))


def test_permuted_copies_come_together_exactly() -> None:
    net, x = network(), torch.randn(5, 4)
    merged = pfnm(permuted_copies(net, x, 4), x, shares=[0.1, 0.2, 0.3, 0.4], prior=SHARP)
    assert merged[0].out_features == 7
    torch.testing.assert_close(merged(x), net(x))
    assert type(merged) is nn.Sequential
    assert all(p.requires_grad for p in merged.parameters())


def test_units_more_of_one_owner_are_all_that_the_width_grows_by() -> None:
    net, x = network(), torch.randn(5, 4)
    big = with_units_more(net, 0, 3)
    merged = pfnm([*permuted_copies(net, x, 3), big], x, prior=SHARP)
    assert (merged[0].out_features, merged[2].in_features) == (10, 10)
    # Posterior means take no part of their weight from the extra units: all is as in the network that has them.
    torch.testing.assert_close(merged(x), big(x), rtol=1e-4, atol=1e-4)


def test_means_are_those_of_the_posterior() -> None:
    net, x = network(), torch.randn(5, 4)
    copies, shares = permuted_copies(net, x, 2), [0.25, 0.75]
    prior = UnitPrior(sigma=0.5, sigma_0=2.0)
    with torch.no_grad():
        copies[1][2].bias.add_(1.0)
    merged = pfnm(copies, x, shares=shares, prior=prior)
    shrunk = 2 / 0.5**2 / (1 / 2.0**2 + 2 / 0.5**2)
    order = torch.cdist(merged[0].weight / shrunk, net[0].weight).argmin(1)
    assert sorted(order.tolist()) == list(range(7))
    torch.testing.assert_close(merged[0].weight, shrunk * net[0].weight[order])
    torch.testing.assert_close(merged[2].weight, shrunk * net[2].weight[:, order])
    torch.testing.assert_close(merged[2].bias, net[2].bias + 0.75)


def test_nothing_that_is_passed_in_changes() -> None:
    net, x = network(), torch.randn(5, 4)
    nets = [net, with_units_more(net, 0, 2)]
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in nets]
    state = torch.get_rng_state()
    merged = pfnm(nets, x)
    assert torch.equal(torch.get_rng_state(), state)
    merged[0].weight.data.zero_()
    for old, each in zip(before, nets, strict=True):
        assert all(torch.equal(old[name], tensor) for name, tensor in each.state_dict().items())


def test_other_networks_are_refused_by_name() -> None:
    deep = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(5, 4)
    with pytest.raises(ArchitectureError, match=r"one hidden layer for pfnm but got the groups \['0', '2'\]"):
        pfnm([deep, deep], x)
    with pytest.raises(ArchitectureError, match="at least two networks"):
        pfnm([network()], x)
    with pytest.raises(ArchitectureError, match="modules for pfnm"):
        pfnm([network(), network().state_dict()], x)  # type: ignore[list-item]
    with pytest.raises(ArchitectureError, match="add up to 1"):
        pfnm([network()] * 2, x, shares=[0.5, 0.6])
    with pytest.raises(ArchitectureError, match="shares above 0"):
        pfnm([network()] * 2, x, shares=[1.0, 0.0])
    normed = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with pytest.raises(ArchitectureError, match=r"'1\.running_mean', a buffer"):
        pfnm([normed, normed], x)
    with pytest.raises(ArchitectureError, match="groups"):
        pfnm([network(), nn.Sequential(nn.Linear(4, 2))], x)
