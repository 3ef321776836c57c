"""Networks that rewrite their weights when their mode changes are left alone, and run at the weights given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import (
    LinearPath,
    PermutationSpec,
    SinkhornRebasin,
    activation_matching,
    diagonal_fisher,
    discover_symmetry,
    evaluate_path,
    kronecker_fisher,
    repair,
    reset_batch_norm,
    simulated_annealing,
    straight_through,
    verify_symmetry,
)
from sinkhorn_rebasin.errors import ArchitectureError, RebasinError
from sinkhorn_rebasin.networks.copying import evaluation_copy, training_copy
from sinkhorn_rebasin.networks.execution import run_at
from tests.mode_networks import MODE_NETWORKS, Adapter

REFUSED = {
    ("folded once", True): "eval() of FoldedOnce prepares",
    ("folded once", False): "'0.folded' is read and '0.one.weight' is not",
    ("averaged", True): "eval() of Averaged changes the output",
    ("folded", False): "'0.folded' is read and '0.one.weight' is not",
}
"""By network and whether it is passed in training mode."""


def pair(name: str, training: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    first, second = (MODE_NETWORKS[name]().train(training) for _ in range(2))
    return first, second


def loaded(net: nn.Module, state: dict[str, Tensor], training: bool) -> nn.Module:
    """What somebody does by hand who wants a network at a state, in eval mode."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name, value in {**dict(twin.named_parameters()), **dict(twin.named_buffers())}.items():
            value.copy_(state[name])
    return twin.eval()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODE_NETWORKS)
def test_runs_at_other_weights_are_those_of_a_network_with_these_weights(name: str, training: bool) -> None:
    (first, second), x = pair(name, training), torch.randn(5, 4)
    if "dropout" in name:
        first, second = first.eval(), second.eval()
    network = evaluation_copy(first)
    states = [first.state_dict(), second.state_dict(), {k: v * 0.5 for k, v in second.state_dict().items()}]
    for state in states:
        if (name, training) in REFUSED:
            with pytest.raises(ArchitectureError) as raised:
                run_at(network, state, x)
            assert REFUSED[name, training] in str(raised.value)
            return
        expected = loaded(first, state, training)
        for child in expected.modules():
            child.training = False
        torch.testing.assert_close(run_at(network, state, x), expected(x))


def spec_of(net: nn.Module) -> PermutationSpec:
    axes = {name: tuple("P" if size == 8 else None for size in p.shape) for name, p in net.named_parameters()}
    return PermutationSpec.from_axes_to_perm(axes, net)


def calls(first: nn.Module, second: nn.Module) -> dict[str, Callable[[], Any]]:
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    data, spec = [(x, y)], spec_of(first)
    both = (first, second, spec)
    return {
        "discover_symmetry": lambda: discover_symmetry(first, x),
        "verify_symmetry": lambda: verify_symmetry(first, spec, x),
        "evaluate_path": lambda: evaluate_path((first, second), data, points=3),
        "LinearPath": lambda: LinearPath.between(first, second)(x, at=0.3),
        "module_at": lambda: LinearPath.between(first, second).module_at(0.3)(x),
        "diagonal_fisher": lambda: diagonal_fisher(first, data),
        "kronecker_fisher": lambda: kronecker_fisher(first, data),
        "activation_matching": lambda: activation_matching(*both, data=data),
        "straight_through": lambda: straight_through(*both, data=data, criterion=F.cross_entropy, epochs=1),
        "simulated_annealing": lambda: simulated_annealing(
            *both, data=data, criterion=F.cross_entropy, steps=2
        ),
        "reset_batch_norm": lambda: reset_batch_norm(first, data),
        "repair": lambda: repair(first, first, second, spec, data),
        "SinkhornRebasin": lambda: SinkhornRebasin(first, second, x).eval().merge(0.5, repair=data),
        "training_copy": lambda: training_copy(first),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODE_NETWORKS)
def test_the_caller_keeps_weights_modes_and_attributes(name: str, training: bool) -> None:
    first, second = pair(name, training)
    for call, function in calls(first, second).items():
        before = copy.deepcopy([first.state_dict(), second.state_dict()])
        kept = [(child, dict(vars(child))) for net in (first, second) for child in net.modules()]
        with suppress(RebasinError):
            function()
        for net, state in zip((first, second), before, strict=True):
            assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items()), call
        assert all(vars(child)[key] is value for child, held in kept for key, value in held.items()), call


def test_adapters_are_discovered_and_aligned() -> None:
    (first, second), x = pair("adapter", True), torch.randn(5, 4)
    expected = second(x)
    rebasin = SinkhornRebasin(first, second, x, start="identity", noise=1.0).eval()
    assert (8,) in [tuple(group.shape) for group in rebasin.spec.groups]
    torch.testing.assert_close(rebasin(x), expected)
    torch.testing.assert_close(rebasin.to_model()(x), expected)
    plain = rebasin.to_model()
    assert isinstance(plain[0], Adapter)
    torch.testing.assert_close(plain.train()(x), plain.eval()(x))
    assert plain[0].merged


def test_the_mode_of_a_rebasin_leaves_its_networks_alone() -> None:
    (first, second), x = pair("adapter", True), torch.randn(5, 4)
    rebasin = SinkhornRebasin(first, second, x, start="identity")
    before = {name: value.clone() for name, value in rebasin.state_dict().items()}
    rebasin.eval()
    assert all(torch.equal(value, before[name]) for name, value in rebasin.state_dict().items())
    assert not rebasin.reference[0].training
    assert rebasin.train().reference[0].training
