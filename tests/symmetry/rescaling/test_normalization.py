"""Networks with incoming norms of one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.symmetry import discover_symmetry, normalize_scales
from tests.rebasin.rescaled_networks import built
from tests.symmetry.witness import difference


def test_a_network_is_copied_and_computes_the_same() -> None:
    model, inputs, spec, rescaling = built("tied_in_parallel")
    before = copy.deepcopy(model.state_dict())
    normal = normalize_scales(model.train(), spec, rescaling)
    assert difference(model, normal.state_dict(), inputs) < 1e-12
    assert type(normal) is type(model)
    assert normal.training
    assert normal.twin.weight is normal.other.weight
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(normal.embed.weight.norm(dim=0), torch.ones(5).double())


def test_rescalings_are_found_on_example_inputs_in_float32() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(8, 3)
    normal = normalize_scales(model, discover_symmetry(model, inputs), example_inputs=inputs)
    norms = torch.cat([normal[0].weight, normal[0].bias[:, None]], 1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(6))
    assert difference(model, normal.state_dict(), inputs) < 1e-6


def test_incoming_weights_without_biases_are_those_of_the_rows_in_any_order_of_layers() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv1d(6, 2, 3, bias=False)
            self.body = nn.Linear(3, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).relu().mT)

    torch.manual_seed(0)
    model, inputs = Backwards().double(), torch.randn(4, 5, 3).double()
    normal = normalize_scales(model, discover_symmetry(model, inputs), example_inputs=inputs)
    torch.testing.assert_close(normal.body.weight.norm(dim=1), torch.ones(6).double())
    assert difference(model, normal.state_dict(), inputs) < 1e-12


def test_neither_rescalings_nor_inputs_is_an_error() -> None:
    model, _, spec, _ = built("relu")
    with pytest.raises(ArchitectureError, match="got neither"):
        normalize_scales(model, spec)
