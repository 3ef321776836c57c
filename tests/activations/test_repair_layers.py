"""Which layers and units a repair corrects, and which it leaves: norms, biases, ties, units of no group."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry, repair, reset_batch_norm
from sinkhorn_rebasin.errors import RebasinWarning
from tests.activations.repair_problems import batches, merge, mlp, pair, recorded
from tests.activations.test_sites import Conv1D
from tests.zoo.case import Function


def test_batch_norm_alone_is_the_statistics_reset() -> None:
    def make() -> nn.Module:
        first, second = nn.Linear(5, 12), nn.Linear(12, 9)
        return nn.Sequential(first, nn.BatchNorm1d(12), nn.ReLU(), second, nn.BatchNorm1d(9), nn.Linear(9, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, discover_symmetry(reference, data[0]), data)
    torch.testing.assert_close(repaired.state_dict(), reset_batch_norm(merged, data).state_dict())
    assert not torch.equal(repaired[1].running_var, merged[1].running_var)


def test_layers_behind_batch_norm_are_corrected_too() -> None:
    def make() -> nn.Module:
        layers = [nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, spec, data)
    found, first, second = (recorded(net, "3", data) for net in (repaired, target, reference))
    torch.testing.assert_close(found.mean(1), (first.mean(1) + second.mean(1)) / 2)
    torch.testing.assert_close(found.std(1), (first.std(1) + second.std(1)) / 2)
    for layer, norm in (("0", repaired[1]), ("5", repaired[6])):
        torch.testing.assert_close(norm.running_mean, recorded(repaired, layer, data).mean(1))
        torch.testing.assert_close(norm.running_var, recorded(repaired, layer, data).var(1))
    for index in (0, 5):
        torch.testing.assert_close(repaired[index].weight, merged[index].weight, rtol=0, atol=0)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_stays_only_if_batch_norm_takes_its_very_outputs(inplace: bool) -> None:
    def make() -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            return net.last(net.norm(input=F.relu(net.first(x), inplace=inplace)))

        return Function(run, first=nn.Linear(5, 12), norm=nn.BatchNorm1d(12), last=nn.Linear(12, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    found, first, second = (
        torch.cat([F.linear(x, net.first.weight, net.first.bias) for x in data])
        for net in (repaired, reference, target)
    )
    torch.testing.assert_close(found.std(0), (first.std(0) + second.std(0)) / 2)
    torch.testing.assert_close(repaired.norm.running_mean, found.relu().mean(0))


@pytest.mark.parametrize("inside", [False, True])
def test_repair_in_inference_mode_is_the_same(inside: bool) -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.Linear(8, 3)
        )

    reference, target = pair(make)
    data = batches(20, 30)
    spec, merged = discover_symmetry(reference, data[0]), merge(reference, target)
    expected = repair(merged, reference, target, spec, data).state_dict()
    with torch.inference_mode():
        given = batches(20, 30) if inside else data
        found = repair(merged, reference, target, spec, given).state_dict()
    torch.testing.assert_close(found, expected)


class Adapted(nn.Linear):
    """A linear layer with a low-rank adapter: scaling its weight alone does not scale what comes out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


class Standardised(nn.Conv1d):
    """A convolution that standardises its weight, and so does not answer to its scale."""

    def _conv_forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = weight - weight.mean((1, 2), keepdim=True)
        return super()._conv_forward(inputs, weight / weight.std((1, 2), keepdim=True), bias)


def test_layers_with_a_forward_of_their_own_stay() -> None:
    def make() -> nn.Module:
        convolution = [nn.Unflatten(1, (1, 5)), Standardised(1, 6, 3), nn.ReLU(), nn.Flatten()]
        last = nn.Linear(8, 8)
        last.forward = lambda x: F.linear(x.abs(), last.weight, last.bias)  # type: ignore[method-assign]
        return nn.Sequential(*convolution, Adapted(18, 8), nn.ReLU(), last, nn.ReLU(), nn.Linear(8, 3))

    torch.manual_seed(0)
    reference, target = make().double(), make().double()
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    assert {slot.tensor for slot in spec.slots} >= {"1.weight", "4.weight"}
    merged = merge(reference, target)
    for given in (data, list(data[0].split(20))):
        with pytest.warns(RebasinWarning, match="'1': it has a forward of its own; '4'.*; '6'"):
            repaired = repair(merged, reference, target, spec, given)
        torch.testing.assert_close(repaired.state_dict(), merged.state_dict(), rtol=0, atol=0)


def test_without_a_bias_the_deviation_alone_is_corrected() -> None:
    reference, target = pair(lambda: nn.Sequential(nn.Linear(5, 12, bias=False), nn.ReLU(), nn.Linear(12, 3)))
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    assert repaired[0].bias is None
    found, first, second = (recorded(net, "0", data).std(1) for net in (repaired, target, reference))
    torch.testing.assert_close(found, (first + second) / 2)


def test_units_that_do_not_vary_are_shifted_and_outputs_of_the_network_stay() -> None:
    reference, target = pair(mlp)
    with torch.no_grad():
        for net in (reference, target):
            net[0].weight[3] = 0.0
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    merged[0].bias.data[3] += 1.0
    repaired = repair(merged, reference, target, spec, data)
    assert all(torch.isfinite(tensor).all() for tensor in repaired.state_dict().values())
    assert repaired[0].bias[3].item() == pytest.approx((reference[0].bias[3] + target[0].bias[3]).item() / 2)
    torch.testing.assert_close(repaired[4].state_dict(), merged[4].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_layer_that_too_few_values_reach_stays(tokens: int) -> None:
    def make(tokens: int = tokens) -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            hidden = torch.cat([net.few(x[:tokens]), net.many(x[tokens:])])
            return net.last(hidden.relu())

        return Function(run, few=nn.Linear(5, 6), many=nn.Linear(5, 6), last=nn.Linear(6, 3))

    reference, target = pair(make)
    data = batches(20)
    spec = discover_symmetry(make(5).double(), data[0])  # where enough reach it to say what reads its units
    merged = merge(reference, target)
    with pytest.warns(RebasinWarning, match="1 stay as they are: 'few': fewer than two values reach it"):
        repaired = repair(merged, reference, target, spec, data)
    torch.testing.assert_close(repaired.few.state_dict(), merged.few.state_dict(), rtol=0, atol=0)
    assert not torch.equal(repaired.many.weight, merged.many.weight)


def test_units_outside_of_the_spec_stay() -> None:
    reference, target = pair(mlp)
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    second = next(slot.group for slot in spec.slots_on("2.bias"))
    repaired = repair(merged, reference, target, spec.without(second), data)
    assert torch.equal(repaired[2].weight, merged[2].weight)
    assert not torch.equal(repaired[0].weight, merged[0].weight)


def test_tied_weights_of_two_layers_stay_and_a_layer_under_two_names_is_one() -> None:
    def tied() -> nn.Module:
        net = Function(
            lambda n, x: n.c(F.relu(n.b(F.relu(n.a(n.inward(x)))))),
            inward=nn.Linear(5, 6),
            a=nn.Linear(6, 6),
            b=nn.Linear(6, 6),
            c=nn.Linear(6, 3),
        )
        net.b.weight = net.a.weight
        return net

    def twice() -> nn.Module:
        shared = nn.Linear(5, 6)
        return Function(lambda n, x: n.c(n.a(x).relu()), a=shared, again=shared, c=nn.Linear(6, 3))

    data = batches(50)
    reference, target = pair(tied)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    with pytest.warns(RebasinWarning, match="'a': it shares its weight with another layer; 'b': it"):
        repaired = repair(merged, reference, target, spec, data)
    assert repaired.a.weight is repaired.b.weight
    assert torch.equal(repaired.a.weight, merged.a.weight)
    reference, target = pair(twice)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    found, first, second = (recorded(net, "a", data).std(1) for net in (repaired, target, reference))
    torch.testing.assert_close(found, (first + second) / 2)


def test_every_layer_of_a_network_that_keeps_its_weights_is_corrected() -> None:
    def make() -> nn.Module:
        net = mlp()
        net.held = [net[2].weight]
        return net

    reference, target = pair(make)
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    for name in ("0", "2"):
        found, first, second = (recorded(net, name, data).std(1) for net in (repaired, target, reference))
        torch.testing.assert_close(found, (first + second) / 2)


def test_layers_with_their_weight_the_other_way_round_are_corrected() -> None:
    def make() -> nn.Module:
        return nn.Sequential(Conv1D(12, 5), nn.ReLU(), Conv1D(9, 12), nn.ReLU(), nn.Linear(9, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    for layer in ("0", "2"):
        found, first, second = (recorded(net, layer, data) for net in (repaired, target, reference))
        torch.testing.assert_close(found.mean(1), (first.mean(1) + second.mean(1)) / 2)
        torch.testing.assert_close(found.std(1), (first.std(1) + second.std(1)) / 2)
