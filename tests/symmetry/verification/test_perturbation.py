"""Moved weights keep a network where its outputs tell things apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import PermutationSpec, discover_rescaling, discover_symmetry
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.symmetry.verification.perturbation import perturbed
from tests.zoo.case import Function


def residual_classifier(blocks: int = 12) -> nn.Module:
    """Wide convolutions on a residual stream, and probabilities of three classes."""

    def run(net: Function, x: Tensor) -> Tensor:
        stream = net.inward(x)
        for block in net.blocks:
            stream = stream + block(stream)
        return net.outward(stream).softmax(1)

    made = [
        nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 41, padding="same"))
        for _ in range(blocks)
    ]
    layers = {"inward": nn.Conv1d(4, 16, 1), "blocks": nn.ModuleList(made), "outward": nn.Conv1d(16, 3, 1)}
    return Function(run, **layers).eval()


def test_a_deep_network_with_probabilities_is_not_driven_to_zero_and_one() -> None:
    torch.manual_seed(0)
    net, x = residual_classifier().double(), torch.randn(2, 4, 50).double()
    spec = discover_symmetry(net, x)
    state = perturbed(net.state_dict(), spec, torch.Generator().manual_seed(0))
    moved = residual_classifier().double()
    moved.load_state_dict(state)
    assert not torch.equal(state["inward.weight"], net.state_dict()["inward.weight"])
    assert (moved(x) > 1e-6).all()


def test_the_rescalings_of_a_deep_network_with_probabilities_are_found() -> None:
    torch.manual_seed(0)
    net, x = residual_classifier(), torch.randn(1, 4, 50)
    spec = discover_symmetry(net, x)
    found = discover_rescaling(net, spec, x, signs=False)
    assert {found.kind_of(name) for name in spec.names} == {"positively homogeneous"}


def test_tensors_of_one_sign_keep_it_and_zeros_move() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    nn.init.zeros_(net[2].weight)
    net[1].running_var.fill_(1e-6)
    spec = discover_symmetry(net.eval(), torch.randn(5, 3))
    state = perturbed(net.state_dict(), spec, torch.Generator().manual_seed(0))
    assert (state["1.running_var"] > 0).all()
    assert (state["2.weight"] != 0).all()


def test_rounding_of_an_output_that_hardly_varies_is_no_change() -> None:
    before = 1 + 1e-10 * torch.rand(8, 2, dtype=torch.float64)
    steps = torch.finfo(torch.float64).eps * torch.arange(16).reshape(8, 2)
    assert largest_change(before, before + steps, []) < 1e-9
    assert largest_change(before, before + 1e-13, []) > 1e-9


@pytest.mark.parametrize(
    "weights",
    [
        *(
            torch.randn(300, 2),
            torch.rand(99),
            -torch.rand(3).double(),
            torch.randn(4, 5).t(),
            torch.ones(()),
        ),
        torch.tensor([1.0] * 999 + [-1.0]),  # the other sign comes late
    ],
)
def test_weights_move_by_a_share_of_themselves_and_a_little(weights: torch.Tensor) -> None:
    state = {"w": weights}
    spec = PermutationSpec((), (), {"w": tuple(weights.shape)})
    moved = perturbed(state, spec, torch.Generator().manual_seed(0))["w"]
    noise = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0), dtype=weights.dtype)
    both_signs = bool((weights < 0).any() and (weights > 0).any())
    assert torch.equal(moved, weights * (1 + 0.1 * noise) + 0.01 * (2 * noise - 1 if both_signs else noise))
