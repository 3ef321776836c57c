"""Networks and inputs on a GPU: the same symmetries, the same function, everything on its device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

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
from sinkhorn_rebasin.networks.checked_run import runnable_copy
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from tests.gpu.device import DEVICE, not_on_the_stand_in, on_a_device
from tests.rebasin.rebasin_problems import NETWORKS, inputs, network
from tests.rebasin.rescaled_networks import factors
from tests.recurrent_networks import recurrent
from tests.symmetry.witness import loaded

pytestmark = on_a_device


def problem(name: str) -> tuple[nn.Module, nn.Module, object]:
    return (
        network(name, 1).eval().to(DEVICE),
        network(name, 2).eval().to(DEVICE),
        move_to(inputs(name), DEVICE),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_symmetries_are_those_of_the_cpu(name: str) -> None:
    model, _, given = problem(name)
    before = torch.get_device_module(DEVICE).get_rng_state()
    spec = discover_symmetry(model, given)
    assert spec == discover_symmetry(network(name, 1), inputs(name))
    assert verify_symmetry(model, spec, given) < 1e-10
    assert all(tensor.device == DEVICE for tensor in model.parameters())
    assert torch.equal(torch.get_device_module(DEVICE).get_rng_state(), before)


class OnDevice(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            raise NotImplementedError("There is no such kernel for the CPU.")
        return super().forward(x)


def test_a_network_that_does_not_run_on_the_cpu_is_run_where_it_is() -> None:
    model, runs = OnDevice(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).to(DEVICE), []

    @contextmanager
    def watching() -> Iterator[None]:
        runs.append("begun")
        yield

    twin, given, returned = runnable_copy(model, torch.randn(4, 3, device=DEVICE), watching)
    assert len(runs) == 2
    assert {tensor.device for tensor in (*twin.parameters(), *tensors_in(given), *returned.tensors)} == {
        DEVICE
    }


# What the stand-in runs on the CPU is seen where a network is followed.
@not_on_the_stand_in
def test_a_network_that_runs_on_its_device_only() -> None:
    model = OnDevice(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).to(DEVICE)
    spec = discover_symmetry(model, torch.randn(4, 3, device=DEVICE))
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(model, spec, torch.randn(4, 3, device=DEVICE)) < 1e-10


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
    rebasin = SinkhornRebasin(reference, target, given, start="identity", noise=1.0).to(DEVICE)
    assert all(p.device == DEVICE for p in rebasin.parameters())
    sum(out.sum() for out in tensors_in(rebasin.train()(given, at=0.5))).backward()
    assert all(bool(p.grad.isfinite().all()) for p in rebasin.parameters())
    with torch.no_grad():
        expected = (
            SinkhornRebasin(target, target, given, start="identity", check=False).to(DEVICE).eval()(given)
        )
        assert largest_change(expected, rebasin.eval()(given)) < 1e-3
    assert all(p.device == DEVICE for p in rebasin.to_model().parameters())
    assert all(p.device == DEVICE for p in rebasin.merge().parameters())


@not_on_the_stand_in
def test_recurrent_networks_are_followed_although_their_kernels_are_fused() -> None:
    model = nn.LSTM(3, 5, batch_first=True).to(DEVICE)
    given = torch.randn(2, 4, 3, device=DEVICE)
    spec = discover_symmetry(model, given)
    assert spec == discover_symmetry(copy.deepcopy(model).cpu(), given.cpu())


def test_paths_half_precision_and_a_default_device() -> None:
    reference, target, given = problem("mlp")
    batches = [(given, torch.zeros(4, dtype=torch.long, device=DEVICE))]
    torch.set_default_device(DEVICE)
    try:
        rebasin = SinkhornRebasin(reference, target, given, noise=0.1).to(DEVICE)
        assert evaluate_path(rebasin, batches, points=3).losses.isfinite().all()
        narrow = SinkhornRebasin(copy.deepcopy(reference).half(), copy.deepcopy(target).half(), given.half())
        narrow.to(DEVICE)(given.half(), at=0.5).sum().backward()
    finally:
        torch.set_default_device(None)


@not_on_the_stand_in
@pytest.mark.parametrize(
    "name", ["lstm", "stacked_gru", "projected", "gru_cell", "peepholes", "linear_layers"]
)
def test_recurrent_units_are_matched_with_their_signs(name: str) -> None:
    net, x = recurrent(name, 6)
    spec = discover_symmetry(net, x[:2])
    rescaling = discover_rescaling(net.to(DEVICE), spec, x[:2].to(DEVICE))
    signs = factors(spec, rescaling, 0, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    cudnn = torch.backends.cudnn.enabled
    found = activation_matching(net, loaded(net, moved), spec, data=[x.to(DEVICE)], rescaling=rescaling)
    assert torch.backends.cudnn.enabled is cudnn
    back = found.apply(moved)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())
