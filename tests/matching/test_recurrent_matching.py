"""Recurrent units are matched with their signs, by their weights and by what they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.matching import Alignment, activation_matching, weight_matching
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    inverse,
    permute_state,
    random_permutations,
    rescale_state,
)
from sinkhorn_rebasin.symmetry import discover_rescaling
from sinkhorn_rebasin.training import RebasinModule
from tests.rebasin.rescaled_networks import factors
from tests.recurrent_networks import INPUTS, RECURRENT, STEPS, recurrent, symmetries_of
from tests.symmetry.witness import difference, loaded

WIDTH = 4
Match = Callable[[nn.Module, nn.Module, PermutationSpec, RescalingSpec | None, Tensor], Alignment]


def by_weights(
    reference: nn.Module, target: nn.Module, spec: PermutationSpec, rescaling: RescalingSpec | None, x: Tensor
) -> Alignment:
    return weight_matching(reference, target, spec, rescaling=rescaling, restarts=3)


def by_activations(
    reference: nn.Module, target: nn.Module, spec: PermutationSpec, rescaling: RescalingSpec | None, x: Tensor
) -> Alignment:
    return activation_matching(reference, target, spec, data=[x[:9], x[9:]], rescaling=rescaling)


def planted(
    name: str, seed: int = 0
) -> tuple[
    nn.Module, nn.Module, PermutationSpec, RescalingSpec, Tensor, dict[str, Tensor], dict[str, Tensor]
]:
    """A network, the same in random order with random signs, and what was done to it."""
    net, x = recurrent(name, WIDTH, seed)
    spec, rescaling = symmetries_of(name, WIDTH)
    signs = factors(spec, rescaling, seed + 5, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed + 7))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    return net, loaded(net, moved), spec, rescaling, x, shuffle, signs


@pytest.mark.parametrize("match", [by_weights, by_activations])
@pytest.mark.parametrize("name", RECURRENT)
def test_planted_permutations_and_signs_are_recovered_exactly(name: str, match: Match) -> None:
    net, target, spec, rescaling, x, shuffle, signs = planted(name)
    found = match(net, target, spec, rescaling, x)
    right = inverse(spec, shuffle)
    assert {n: p.tolist() for n, p in found.permutations.items()} == {n: p.tolist() for n, p in right.items()}
    assert found.weight_matched == ()
    for group, planted_signs in signs.items():
        assert found.signs[group].tolist() == planted_signs[:, shuffle[group]].tolist()
    assert any(bool((one < 0).any()) for one in found.signs.values())
    back = found.apply(target)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("match", [by_weights, by_activations])
@pytest.mark.parametrize("name", RECURRENT)
def test_the_matched_network_is_the_targets_function(name: str, match: Match) -> None:
    net, x = recurrent(name, WIDTH, 0)
    other, _ = recurrent(name, WIDTH, 1)
    spec, rescaling = symmetries_of(name, WIDTH)
    found = match(net, other, spec, rescaling, x)
    assert any(bool((one < 0).any()) for one in found.signs.values())
    fresh = torch.randn(4, STEPS + 2, INPUTS).double()
    other = other.double()
    assert difference(other, found.apply(other), fresh) < 1e-12


@pytest.mark.parametrize("name", RECURRENT)
def test_without_rescalings_recurrent_units_are_matched_by_what_they_do(name: str) -> None:
    net, x = recurrent(name, WIDTH)
    spec, _ = symmetries_of(name, WIDTH)
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    target = loaded(net, permute_state(net.state_dict(), spec, shuffle))
    found = by_activations(net, target, spec, None, x)
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())
    assert (found.weight_matched, found.signs) == ((), {})


@pytest.mark.parametrize("name", ["lstm", "reset_before"])
def test_signs_of_recurrent_units_are_learned(name: str) -> None:
    net, target, spec, rescaling, x, *_ = planted(name)
    generator = torch.Generator().manual_seed(0)
    options = {"spec": spec, "rescale": rescaling, "noise": 0.6, "generator": generator}
    rebasin = SinkhornRebasin(net, target, x, **options)
    distance = WeightDistance("l2")
    with torch.no_grad():
        assert float(distance(rebasin.eval())) > 1e-2
    module = RebasinModule(rebasin.train(), distance, lr=0.1)
    optimizer, steps = module.configure_optimizers(), 150
    for step in range(steps):
        rebasin.temperature.fill_(0.05 ** (step / steps))
        optimizer.zero_grad()
        module.training_step(0, 0).backward()
        optimizer.step()
    assert float(distance(rebasin.eval()).detach()) == 0.0


@pytest.mark.parametrize("match", [by_weights, by_activations])
def test_an_alignment_with_recurrent_signs_starts_a_rebasin(match: Match) -> None:
    net, target, spec, rescaling, x, *_ = planted("bidirectional")
    found = match(net, target, spec, rescaling, x)
    rebasin = SinkhornRebasin(net, target, x, spec=spec, start=found, rescale=found.rescaling)
    moved = rebasin.merge(0.5).state_dict()
    assert all(torch.allclose(moved[key], tensor) for key, tensor in net.state_dict().items())
    by_itself = SinkhornRebasin(net, target, x, rescale=True).eval()
    assert float(WeightDistance("l2")(by_itself)) == 0.0


def test_weights_that_are_never_used_do_not_mislead() -> None:
    net, target, spec, rescaling, x, shuffle, signs = planted("stacked_gru")
    for one in (net, target):
        one.r.weight_ih_l0.data[:, -1] = 20 * torch.randn(len(one.r.weight_ih_l0))
    x[..., -1] = 0
    found = by_activations(net, target, spec, rescaling, x)
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())
    assert all(torch.equal(found.signs[n].float(), signs[n][:, shuffle[n]]) for n in signs)


@pytest.mark.parametrize("name", ["lstm", "lstm_by_hand"])
def test_batches_of_other_lengths_are_read_alike(name: str) -> None:
    net, target, spec, rescaling, x, shuffle, _ = planted(name)
    data = [x[:5], x[5:9, :2], x[9:, :4].repeat(1, 3, 1)]
    found = activation_matching(net, target, spec, data=iter(data), rescaling=rescaling)
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())
    assert found.weight_matched == ()


def test_nothing_passed_in_is_changed_by_reading_operations() -> None:
    net, target, spec, rescaling, x, *_ = planted("lstm")
    before = [{key: t.clone() for key, t in one.state_dict().items()} for one in (net.train(), target)]
    flags = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    drawn, given = torch.get_rng_state(), x.clone()
    by_activations(net, target, spec, rescaling, x)
    assert (flags, net.training) == ((torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled), True)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(x, given)
    for one, state in zip((net, target), before, strict=True):
        assert all(torch.equal(one.state_dict()[key], tensor) for key, tensor in state.items())
        assert all(p.requires_grad and p.grad is None for p in one.parameters())
        assert not any(module._forward_hooks for module in one.modules())


@pytest.mark.parametrize("name", ["lstm", "linear_layers"])
def test_a_default_device_changes_nothing(name: str) -> None:
    net, target, spec, rescaling, x, shuffle, signs = planted(name)
    torch.set_default_device("meta")
    try:
        assert discover_rescaling(net, spec, x[:2]) == rescaling
        found = by_activations(net, target, spec, rescaling, x)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())
    assert all(torch.equal(found.signs[n].float(), signs[n][:, shuffle[n]]) for n in signs)
