"""Networks and inputs on a GPU: the same symmetries, the same function, everything on its device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import (
    SinkhornRebasin,
    activation_matching,
    discover_rescaling,
    discover_symmetry,
    evaluate_path,
    permute_state,
    random_permutations,
    rescale_state,
    verify_symmetry,
    weight_matching,
)
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from tests.rebasin.rebasin_problems import NETWORKS, inputs, network
from tests.rebasin.rescaled_networks import factors
from tests.recurrent_networks import recurrent
from tests.symmetry.witness import loaded

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"
)
CUDA = torch.device("cuda")


def problem(name: str) -> tuple[nn.Module, nn.Module, object]:
    return network(name, 1).eval().to(CUDA), network(name, 2).eval().to(CUDA), move_to(inputs(name), CUDA)


@pytest.mark.parametrize("name", NETWORKS)
def test_symmetries_are_those_of_the_cpu(name: str) -> None:
    model, _, given = problem(name)
    before = torch.cuda.get_rng_state()
    spec = discover_symmetry(model, given)
    assert spec == discover_symmetry(network(name, 1), inputs(name))
    assert verify_symmetry(model, spec, given) < 1e-10
    assert all(tensor.device.type == "cuda" for tensor in model.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_network_that_runs_on_its_device_only() -> None:
    class OnDevice(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.ones(2, device=CUDA)

    model = OnDevice(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).to(CUDA)
    spec = discover_symmetry(model, torch.randn(4, 3, device=CUDA))
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(model, spec, torch.randn(4, 3, device=CUDA)) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "residual", "grouped", "tied"])
def test_weight_matching_agrees_with_the_cpu(name: str) -> None:
    reference, target, given = problem(name)
    spec = discover_symmetry(reference, given)
    found = weight_matching(reference, target, spec).permutations
    expected = weight_matching(reference.cpu(), target.cpu(), spec).permutations
    assert all(torch.equal(found[group].cpu(), expected[group]) for group in spec.names)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_re_basin_is_trained_and_hardened(name: str) -> None:
    reference, target, given = problem(name)
    rebasin = SinkhornRebasin(reference, target, given, start="identity", noise=1.0).to(CUDA)
    assert all(p.device.type == "cuda" for p in rebasin.parameters())
    sum(out.sum() for out in tensors_in(rebasin.train()(given, at=0.5))).backward()
    assert all(bool(p.grad.isfinite().all()) for p in rebasin.parameters())
    with torch.no_grad():
        expected = (
            SinkhornRebasin(target, target, given, start="identity", check=False).to(CUDA).eval()(given)
        )
        assert largest_change(expected, rebasin.eval()(given)) < 1e-3
    assert all(p.device.type == "cuda" for p in rebasin.to_model().parameters())
    assert all(p.device.type == "cuda" for p in rebasin.merge().parameters())


def test_recurrent_networks_are_followed_although_their_kernels_are_fused() -> None:
    model = nn.LSTM(3, 5, batch_first=True).to(CUDA)
    given = torch.randn(2, 4, 3, device=CUDA)
    spec = discover_symmetry(model, given)
    assert spec == discover_symmetry(copy.deepcopy(model).cpu(), given.cpu())


def test_paths_half_precision_and_a_default_device() -> None:
    reference, target, given = problem("mlp")
    batches = [(given, torch.zeros(4, dtype=torch.long, device=CUDA))]
    torch.set_default_device(CUDA)
    try:
        rebasin = SinkhornRebasin(reference, target, given, noise=0.1).to(CUDA)
        assert evaluate_path(rebasin, batches, points=3).losses.isfinite().all()
        narrow = SinkhornRebasin(copy.deepcopy(reference).half(), copy.deepcopy(target).half(), given.half())
        narrow.to(CUDA)(given.half(), at=0.5).sum().backward()
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize(
    "name", ["lstm", "stacked_gru", "projected", "gru_cell", "peepholes", "linear_layers"]
)
def test_recurrent_units_are_matched_with_their_signs(name: str) -> None:
    net, x = recurrent(name, 6)
    spec = discover_symmetry(net, x[:2])
    rescaling = discover_rescaling(net.to(CUDA), spec, x[:2].to(CUDA))
    signs = factors(spec, rescaling, 0, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    cudnn = torch.backends.cudnn.enabled
    found = activation_matching(net, loaded(net, moved), spec, data=[x.to(CUDA)], rescaling=rescaling)
    assert torch.backends.cudnn.enabled is cudnn
    back = found.apply(moved)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())
