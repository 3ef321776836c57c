"""Gram matrices of what goes into layers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError


def test_gram_of_a_linear_layer_is_the_mean_of_outer_products() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()
    x = torch.randn(7, 5, 3).double()
    found = sr.gram_matrices(net, [x[:3], x[3:]])
    ones = torch.cat([x.reshape(35, 3), torch.ones(35, 1).double()], 1)
    hidden = torch.tanh(net[0](x)).reshape(35, 4)
    torch.testing.assert_close(found.layers["0"].matrix[0], ones.T @ ones / 35)
    torch.testing.assert_close(found.layers["2"].matrix[0], (hidden.T @ hidden / 35).detach())
    assert (found.samples, found.layers["0"].bias, found.layers["2"].bias) == (7, "0.bias", None)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gram_of_a_convolution_is_that_of_its_unfolded_patches(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, padding=1, stride=2, groups=groups, bias=False).double()
    x = torch.randn(3, 4, 6, 7).double()
    matrix = sr.gram_matrices(layer, [x]).layers[""].matrix
    patches = F.unfold(x, 3, padding=1, stride=2)  # (samples, channels times taps, positions)
    rows = patches.reshape(3, groups, 36 // groups, -1).permute(1, 0, 3, 2).flatten(1, 2)
    torch.testing.assert_close(matrix, rows.mT @ rows / rows.shape[1])


def test_layers_that_do_not_run_as_modules_have_none() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.by_hand, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.a(x), self.by_hand.weight)

    assert list(sr.gram_matrices(Net(), [torch.randn(2, 3)]).layers) == ["a"]


def test_the_network_stays_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    before, x = copy.deepcopy(net.state_dict()), torch.randn(6, 3)
    kept, state = x.clone(), torch.get_rng_state()
    sr.gram_matrices(net, [x])
    torch.testing.assert_close(net.state_dict(), before)
    assert net.training
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert not net[0]._forward_pre_hooks


def test_no_sample_is_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        sr.gram_matrices(nn.Linear(2, 2), [])
