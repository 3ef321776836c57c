"""Re-basins that learn the signs of units."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import (
    MidpointLoss,
    SinkhornRebasin,
    WeightDistance,
    discover_rescaling,
    discover_symmetry,
    permute_state,
    random_permutations,
    repair,
    rescale_state,
    weight_matching,
)
from sinkhorn_rebasin.errors import CheckpointError, SpecError
from sinkhorn_rebasin.permutations import permutation_matrix
from sinkhorn_rebasin.permutations.signed_permutations import SignedPermutations
from sinkhorn_rebasin.training import RebasinModule
from tests.rebasin.rescaled_networks import NETWORKS, built, factors
from tests.symmetry.witness import difference

SIGNED = [name for name, network in NETWORKS.items() if network.sign]


def rebasin_of(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> SinkhornRebasin:
    """A network and another draw of it, with random orders, scales and signs."""
    model, inputs, spec, rescaling = built(name, dtype)
    target = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for parameter in target.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    options = {"start": "identity", "noise": 1.5, "generator": generator, "rescale": rescaling, **options}
    return SinkhornRebasin(model, target, inputs, spec=spec, **options)


def planted(width: int = 10, seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
    """A tanh network, and the same with random signs and in random order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference = nn.Sequential(
            *(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
        )
        inputs = torch.randn(8, 6)
    spec = discover_symmetry(reference, inputs)
    rescaling = discover_rescaling(reference, spec, inputs)
    signs = factors(spec, rescaling, seed, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    target = copy.deepcopy(reference)
    flipped = rescale_state(reference.state_dict(), spec, rescaling, signs=signs)
    target.load_state_dict(permute_state(flipped, spec, shuffle))
    return reference, target, inputs


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_returned_network_is_the_targets_function(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    rebasin = rebasin_of(name, dtype)
    for scores in rebasin.sign_scores.values():
        scores.data.normal_(generator=torch.Generator().manual_seed(0))
    assert any(bool((signs < 0).any()) for signs in rebasin.hard_signs().values())
    torch.manual_seed(2)
    inputs = NETWORKS[name].make_inputs()
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    for moved in (rebasin.to_model(), rebasin.merge(0.0)):
        assert difference(moved, rebasin.target_state(), inputs) < tolerance


def by_hand(rebasin: SinkhornRebasin, tau: float) -> dict[str, Tensor]:
    """The soft tanh network, from signed matrices M = P ∘ tanh(Z/τ) on every side of every weight."""
    p, t = rebasin.soft_permutations(), rebasin.target_state()
    m, n = (p[name] * (rebasin.sign_scores[name][0] / tau).tanh() for name in ("0", "2"))
    return {
        "0.weight": m @ t["0.weight"],
        "0.bias": m @ t["0.bias"],
        "2.weight": n @ t["2.weight"] @ m.T,
        "2.bias": n @ t["2.bias"],
        "4.weight": t["4.weight"] @ n.T,
        "4.bias": t["4.bias"],
    }


def test_soft_signs_multiply_the_permutations_of_odd_slots() -> None:
    rebasin = rebasin_of("tanh", tolerance=1e-9)
    rebasin.temperature.fill_(0.7)
    found = rebasin.rebased_state()
    for name, tensor in by_hand(rebasin, 0.7).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SIGNED)
def test_soft_turns_hard_as_the_temperature_falls(name: str) -> None:
    rebasin = rebasin_of(name)
    # Far from undecided, so that this temperature is low enough.
    for scores in rebasin.sign_scores.values():
        scores.data = scores.data.sign()
    for group, indices in rebasin.hard_permutations().items():
        rebasin.scores[group].data = permutation_matrix(indices, torch.float64)
    rebasin.temperature.fill_(0.02)
    hard = rebasin.rebased_state(hard=True)
    assert any(bool((signs < 0).any()) for signs in rebasin.hard_signs().values())
    for key, tensor in rebasin.rebased_state(hard=False).items():
        torch.testing.assert_close(tensor, hard[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["tanh", "packed_attention", "tied_tanh"])
def test_gradients_of_soft_signs_are_those_of_finite_differences(name: str) -> None:
    rebasin = rebasin_of(name)
    action, target = SignedPermutations(rebasin.spec, rebasin.rescaling), rebasin.target_state()
    names, soft = sorted(rebasin.sign_scores), rebasin.soft_permutations()
    permutations = {key: value.detach() for key, value in soft.items()}

    def run(*scores: Tensor) -> Tensor:
        signs = {key: (value / 0.8).tanh() for key, value in zip(names, scores, strict=True)}
        moved = action.applied(target, permutations, signs)
        return torch.stack([moved[key].square().sum() for key in rebasin.spec.parameters])

    given = tuple(rebasin.sign_scores[key].detach().requires_grad_() for key in names)
    assert torch.autograd.gradcheck(run, given)


def test_a_loss_reaches_the_sign_scores_in_training_alone() -> None:
    rebasin = rebasin_of("tanh", torch.float32)
    batch = torch.randn(16, 3), torch.randint(2, (16,))
    MidpointLoss(F.cross_entropy)(rebasin, batch).backward()
    assert all(bool(scores.grad.abs().max() > 0) for scores in rebasin.sign_scores.values())
    rebasin.eval().zero_grad()
    assert not any(tensor.requires_grad for tensor in rebasin.rebased_state().values())


def test_the_start_undoes_planted_signs_and_without_them_does_not() -> None:
    reference, target, inputs = planted()
    found = SinkhornRebasin(reference, target, inputs, rescale=True).eval()
    assert float(WeightDistance("l2")(found)) == 0.0
    plain = SinkhornRebasin(reference, target, inputs).eval()
    assert float(WeightDistance("l2")(plain)) > 1e-2
    assert not plain.sign_scores
    assert not any("sign" in name for name in plain.state_dict())


@pytest.mark.parametrize("seed", [0, 2])
def test_training_from_a_noisy_start_recovers_signs_and_orders(seed: int) -> None:
    reference, target, inputs = planted(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rebasin = SinkhornRebasin(reference, target, inputs, rescale=True, noise=0.6, generator=generator)
    with torch.no_grad():
        assert float(WeightDistance("l2")(rebasin.eval())) > 1e-2
    module = RebasinModule(rebasin.train(), WeightDistance("l2"), lr=0.1)
    optimizer, steps = module.configure_optimizers(), 150
    for step in range(steps):
        rebasin.temperature.fill_(0.05 ** (step / steps))
        optimizer.zero_grad()
        module.training_step(0, 0).backward()
        optimizer.step()
    assert float(WeightDistance("l2")(rebasin.eval()).detach()) == 0.0
    assert difference(target.double(), rebasin.double().to_model().state_dict(), inputs.double()) < 1e-12


def test_signs_are_copied_moved_saved_and_loaded() -> None:
    rebasin = rebasin_of("packed_attention", torch.float32)
    twin = copy.deepcopy(rebasin).double()
    for name, scores in twin.sign_scores.items():
        assert scores.dtype == torch.float64
        assert torch.equal(scores.float(), rebasin.sign_scores[name])
        shape = rebasin.rescaling.shapes(rebasin.spec, "sign")[name]
        assert tuple(rebasin.hard_signs()[name].shape) == shape
        assert tuple(scores.shape) == (*shape, shape[-1])
    file = io.BytesIO()
    torch.save(rebasin.state_dict(), file)
    file.seek(0)
    other = rebasin_of("packed_attention", torch.float32, noise=0.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name, signs in rebasin.hard_signs().items():
        assert torch.equal(other.hard_signs()[name], signs)
    with pytest.raises(CheckpointError, match="sign_scores"):
        rebasin_of("packed_attention", torch.float32, rescale=False).load_state_dict(rebasin.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    rebasin = rebasin_of("tanh", torch.float32)
    target = rebasin.to_model().to(dtype)
    found = SinkhornRebasin(target, target, NETWORKS["tanh"].make_inputs().to(dtype), rescale=True)
    assert all(scores.dtype == torch.float32 for scores in found.sign_scores.values())
    assert all(tensor.dtype == dtype for tensor in found.rebased_state().values())
    for name, tensor in found.to_model().state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_an_alignment_brings_its_signs_along_or_is_refused() -> None:
    reference, target, inputs = planted()
    spec = discover_symmetry(reference, inputs)
    rescaling = discover_rescaling(reference, spec, inputs)
    found = weight_matching(reference, target, spec, rescaling=rescaling)
    rebasin = SinkhornRebasin(reference, target, inputs, spec=spec, start=found, rescale=rescaling)
    for name, signs in rebasin.hard_signs().items():
        assert torch.equal(signs.double(), found.signs[name])
    with pytest.raises(SpecError, match=r"rescale=alignment\.rescaling"):
        SinkhornRebasin(reference, target, inputs, spec=spec, start=found)


def test_the_module_trains_sign_scores_with_the_scores() -> None:
    groups = RebasinModule(rebasin_of("linear"), WeightDistance("l2"), lr=0.1, scale_lr=0.01)
    first, second = groups.configure_optimizers().param_groups
    assert {id(p) for p in groups.rebasin.sign_scores.parameters()} <= {id(p) for p in first["params"]}
    assert {id(p) for p in groups.rebasin.log_scales.parameters()} == {id(p) for p in second["params"]}


def test_merging_can_put_deviations_right_and_leave_the_means() -> None:
    rebasin = rebasin_of("tanh")
    data = [torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)]
    target, plain = rebasin.to_model(), rebasin.merge(0.5)
    expected = repair(plain, rebasin.reference, target, rebasin.spec, data, rescale_only=True).state_dict()
    found = rebasin.merge(0.5, repair=data, rescale_only=True).state_dict()
    other = rebasin.merge(0.5, repair=data).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not torch.allclose(found["2.bias"], other["2.bias"])
