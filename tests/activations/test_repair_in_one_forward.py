"""REPAIR in one forward against REPAIR layer by layer, and where it must not be taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry, repair
from tests.activations.repair_problems import NETWORKS, batches, merge, mlp, pair, recorded
from tests.zoo.case import Function

# Packed attention stays as it is, which has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Expected to correct every layer")


def forwards(net: nn.Module) -> list[int]:
    """A list that grows with every forward of the network or of a copy of it."""
    seen: list[int] = []
    net.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def check_alike(reference: nn.Module, target: nn.Module) -> None:
    """One batch must give what its parts give, which is layer by layer."""
    (whole,) = batches(60)
    spec = discover_symmetry(reference, whole)
    merged = merge(reference, target)
    at_once = repair(merged, reference, target, spec, [whole])
    in_parts = repair(merged, reference, target, spec, list(whole.split(25)))
    torch.testing.assert_close(at_once.state_dict(), in_parts.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rescale_only", [False, True])
@pytest.mark.parametrize("make", NETWORKS)
def test_one_batch_gives_what_its_parts_give(make: Any, rescale_only: bool) -> None:
    reference, target = pair(make)
    (whole,) = batches(60)
    spec = discover_symmetry(reference, whole)
    merged = merge(reference, target)
    counted = forwards(merged)
    options = {"at": 0.3, "rescale_only": rescale_only}
    at_once = repair(merged, reference, target, spec, [whole], **options)
    few = len(counted)
    in_parts = repair(merged, reference, target, spec, list(whole.split(25)), **options)
    assert few == 2 < len(counted) - few  # the order of the layers, and the one forward
    torch.testing.assert_close(at_once.state_dict(), in_parts.state_dict(), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(next(at_once.parameters()), next(merged.parameters()))


def test_layers_that_run_twice_are_measured_over_both_runs() -> None:
    def make() -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            return net.last(net.twice(net.twice(net.first(x).relu()).relu()).relu())

        return Function(run, first=nn.Linear(5, 8), twice=nn.Linear(8, 8), last=nn.Linear(8, 3))

    reference, target = pair(make)
    check_alike(reference, target)


def test_a_weight_that_is_read_outside_of_its_layer_is_corrected_there_too() -> None:
    def make() -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            hidden = F.linear(net.twice(net.first(x).relu()).relu(), net.twice.weight).relu()
            return net.last(net.third(hidden).relu())

        layers = {"first": nn.Linear(5, 8), "twice": nn.Linear(8, 8), "third": nn.Linear(8, 8)}
        return Function(run, **layers, last=nn.Linear(8, 3))

    check_alike(*pair(make))


def test_hooks_of_the_network_have_their_say_behind_the_corrected_weights() -> None:
    reference, target = pair(mlp)
    for net in (reference, target):
        net[0].register_forward_hook(lambda _, __, output: output.tanh())
    check_alike(reference, target)
    data = batches(60)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    found, first, second = (
        F.linear(data[0], net[0].weight, net[0].bias) for net in (repaired, reference, target)
    )
    torch.testing.assert_close(found.mean(0), (first.mean(0) + second.mean(0)) / 2)
    torch.testing.assert_close(found.std(0), (first.std(0) + second.std(0)) / 2)
    found, first, second = (recorded(net, "2", data) for net in (repaired, reference, target))
    torch.testing.assert_close(found.std(1), (first.std(1) + second.std(1)) / 2)


def test_half_precision_gives_the_statistics_to_its_own_accuracy() -> None:
    reference, target = (net.to(torch.bfloat16) for net in pair(mlp))
    data = [batches(400)[0].to(torch.bfloat16)]
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    for name in ("0", "2"):
        found, first, second = (recorded(net, name, data).double() for net in (repaired, target, reference))
        for share in (lambda units: units.mean(1), lambda units: units.std(1)):
            goal = (share(first) + share(second)) / 2
            torch.testing.assert_close(share(found), goal, rtol=0.03, atol=0.03)
