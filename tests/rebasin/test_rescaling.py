"""Re-basins that learn the scales of units as well."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin, WeightDistance, rescale_state
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, SpecError
from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from sinkhorn_rebasin.training import RebasinModule
from tests.rebasin.rescaled_networks import NETWORKS, built, factors
from tests.symmetry.witness import difference

SCALED = [name for name, network in NETWORKS.items() if network.positive]


def rebasin_of(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> SinkhornRebasin:
    """A network and another draw of it, with random permutations and, if there are any, random scales."""
    model, inputs, spec, _ = built(name, dtype)
    target = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    options = {"start": "identity", "noise": 1.0, "generator": generator, "rescale": True, **options}
    rebasin = SinkhornRebasin(model, target, inputs, spec=spec, **options)
    for parameter in rebasin.log_scales.values():
        parameter.data.normal_(std=0.7, generator=generator)
    return rebasin


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_returned_network_is_the_targets_function(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    rebasin = rebasin_of(name, dtype).eval()
    torch.manual_seed(2)
    inputs = NETWORKS[name].make_inputs()
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    moved = rebasin.to_model()
    assert difference(rebasin.merge(0.0), rebasin.target_state(), inputs) < tolerance
    assert difference(moved, rebasin.target_state(), inputs) < tolerance
    assert any(
        not torch.equal(tensor, rebasin.target_state()[key]) for key, tensor in moved.state_dict().items()
    )


@pytest.mark.parametrize("hard", [True, False])
def test_rebased_state_is_the_target_rescaled_and_then_permuted(hard: bool) -> None:
    found = built("attention")[3]
    positive = tuple(one for one in found.generators if one.kind == "positive")
    rebasin = rebasin_of("attention", rescale=replace(found, generators=positive))
    scaled = rescale_state(rebasin.target_state(), rebasin.spec, rebasin.rescaling, dict(rebasin.log_scales))
    permutations = rebasin.hard_permutations() if hard else rebasin.soft_permutations()
    expected = permute_state(scaled, rebasin.spec, permutations)
    rebased = rebasin.rebased_state(hard)
    for name, tensor in expected.items():
        torch.testing.assert_close(rebased[name], tensor, rtol=1e-4, atol=1e-4)
    half = rebasin.merge(0.5).state_dict()
    hardened = rebasin.rebased_state(hard=True)
    for name, tensor in rebasin.reference_state().items():
        torch.testing.assert_close(half[name], ((tensor + hardened[name]) / 2).detach())


def test_scales_get_gradients_in_training_and_in_eval_mode() -> None:
    rebasin = rebasin_of("relu")
    x, labels = torch.randn(16, 3).double(), torch.randint(2, (16,))
    MidpointLoss(F.cross_entropy)(rebasin.train(), (x, labels)).backward()
    assert all(bool(p.grad.abs().max() > 0) for p in rebasin.parameters() if p.grad is not None)
    assert all(parameter.grad is not None for parameter in rebasin.log_scales.values())


def test_off_by_default_and_without_a_trace() -> None:
    rebasin = rebasin_of("relu", rescale=False)
    assert not rebasin.log_scales
    assert not any("log_scales" in name for name in rebasin.state_dict())
    assert {name for name, _ in rebasin.named_parameters()} == {f"scores.{g}" for g in rebasin.spec.names}


def test_scales_start_at_one_and_are_saved_and_loaded() -> None:
    model, inputs, spec, rescaling = built("relu")
    rebasin = SinkhornRebasin(model, model, inputs, spec=spec, rescale=rescaling).eval()
    assert all(not bool(value.any()) for value in rebasin.log_scales.values())
    other = rebasin_of("relu")
    rebasin.load_state_dict(other.state_dict())
    assert all(torch.equal(rebasin.log_scales[name], value) for name, value in other.log_scales.items())
    with pytest.raises(CheckpointError, match="log_scales"):
        rebasin_of("relu", rescale=False).load_state_dict(other.state_dict())


def test_rescalings_of_another_network_and_missing_inputs_are_told() -> None:
    model, _, spec, _ = built("relu")
    with pytest.raises(ArchitectureError, match="discover the rescalings"):
        SinkhornRebasin(model, model, spec=spec, rescale=True)
    with pytest.raises(SpecError, match="of this spec"):
        SinkhornRebasin(model, model, spec=spec, rescale=built("attention")[3])


def planted(seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network, and the same rescaled and re-ordered."""
    model, inputs, spec, rescaling = built("relu")
    logs = {name: 0.5 * value for name, value in factors(spec, rescaling, seed)[0].items()}
    target = copy.deepcopy(model)
    scaled = rescale_state(model.state_dict(), spec, rescaling, logs)
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    target.load_state_dict(permute_state(scaled, spec, shuffle))
    return model, target, inputs


def test_training_recovers_a_planted_rescaled_copy() -> None:
    reference, target, inputs = planted()
    rebasin = SinkhornRebasin(reference, target, inputs, rescale=True, temperature=0.05)
    loss = WeightDistance("l2")
    with torch.no_grad():
        before = float(loss(rebasin.eval()))
    optimizer = torch.optim.Adam(rebasin.log_scales.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
    assert before > 1e-2
    assert float(loss(rebasin).detach()) < 1e-8
    assert difference(target, rebasin.to_model().state_dict(), inputs) < 1e-12


def test_training_from_the_identity_recovers_order_and_scales() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))
        inputs = torch.randn(8, 8)
    spec = discover_symmetry(reference, inputs)
    rescaling = discover_rescaling(reference, spec, inputs, signs=False)
    logs = {g: 0.5 * v for g, v in factors(spec, rescaling, dtype=torch.float32)[0].items()}
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    target = copy.deepcopy(reference)
    scaled = rescale_state(reference.state_dict(), spec, rescaling, logs)
    target.load_state_dict(permute_state(scaled, spec, shuffle))
    rebasin = SinkhornRebasin(reference, target, inputs, rescale=rescaling, start="identity")
    module = RebasinModule(rebasin, WeightDistance("l2"), lr=0.1, scale_lr=0.03)
    optimizer, steps = module.configure_optimizers(), 200
    for step in range(steps):
        rebasin.temperature.fill_(0.05 ** (step / steps))
        optimizer.zero_grad()
        module.training_step(0, 0).backward()
        optimizer.step()
    answer, found = inverse(spec, shuffle), rebasin.eval().hard_permutations()
    assert all(torch.equal(found[group], answer[group]) for group in answer)
    assert float(WeightDistance("l2")(rebasin).detach()) < 1e-8


def test_the_module_gives_scales_a_learning_rate_of_their_own() -> None:
    module = RebasinModule(rebasin_of("relu"), WeightDistance("l2"), lr=0.1, scale_lr=0.01)
    groups = module.configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.01]
    listed = {id(p) for group in groups for p in group["params"]}
    assert listed == {id(p) for p in module.rebasin.parameters()}
    plain = RebasinModule(rebasin_of("relu", rescale=False), WeightDistance("l2"))
    assert len(plain.configure_optimizers().param_groups) == 1
