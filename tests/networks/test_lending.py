"""Runs with lent weights leave a network as they found it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from sinkhorn_rebasin.networks import lending
from sinkhorn_rebasin.networks.double_precision import DoublePrecision
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy
from sinkhorn_rebasin.networks.private_run import private_run


class HooksItself(nn.Module):
    """Registers hooks in its first forward, as libraries do that capture hidden states, and remembers that it has."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.hooked, self.seen = kind, False, []
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            if self.kind == "forward":
                self.first.register_forward_hook(lambda layer, args, output: self.seen.append(output))
            else:
                self.first.register_forward_pre_hook(
                    lambda layer, args: self.seen.append(args[0] @ args[0].t())
                )
            self.hooked = True
        self.seen.clear()
        hidden = self.first(x)
        (seen,) = self.seen  # one hook, however often it has run
        return self.last(hidden) + seen.sum()


@pytest.mark.parametrize("kind", ["forward", "before"])
@pytest.mark.parametrize("lent", [False, True])
def test_hooks_of_a_run_go_with_it(kind: str, lent: bool) -> None:
    torch.manual_seed(0)
    net, inputs = HooksItself(kind), torch.randn(5, 3)
    state = {name: tensor.detach() for name, tensor in net.named_parameters()} if lent else {}
    outputs = [run_at(net, state, inputs) for _ in range(3)]
    assert not net.hooked
    assert not net.first._forward_hooks
    assert not net.first._forward_pre_hooks
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[0], net(inputs))


class Flexible(nn.Module):
    """Attention by a higher-order operator."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.mix(x)[:, None].chunk(3, -1)
        return flex_attention(queries, keys, values)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("lent", [False, True])
def test_higher_order_operators_can_be_watched(lent: bool) -> None:
    net, inputs = Flexible().requires_grad_(False), torch.randn(2, 5, 8)
    state = {name: tensor.detach() for name, tensor in net.named_parameters()} if lent else {}
    assert torch.allclose(run_at(net, state, inputs), net(inputs), atol=1e-6)


class Fusing(nn.Linear):
    """A layer that does something of its own when its mode changes."""

    def train(self, mode: bool = True) -> Fusing:
        return super().train(mode)


def test_a_frozen_network_with_modes_of_its_own_is_copied_for_its_first_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies: list[bool] = []

    def counting(*given: Any, **named: Any) -> tuple[Any, bool]:
        outputs, lives_on = private_run(*given, **named)
        copies.append(lives_on)
        return outputs, lives_on

    monkeypatch.setattr(lending, "private_run", counting)
    network = nn.Sequential(Fusing(3, 4), nn.Tanh(), Fusing(4, 2))
    frozen, x = frozen_copy(network), torch.randn(5, 3)
    weights = {name: tensor.detach().requires_grad_() for name, tensor in network.named_parameters()}
    for _ in range(3):
        found = run_at(frozen, weights, x).square().sum()
        (gradient,) = torch.autograd.grad(found, weights["0.weight"])
        (expected,) = torch.autograd.grad(network(x).square().sum(), network[0].weight)
        torch.testing.assert_close(gradient, expected)
    assert copies == [False]


def test_attributes_are_searched_for_weights_once_under_a_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    search = lending._keeps_weights
    monkeypatch.setattr(lending, "_keeps_weights", lambda module: searched.append(module) or search(module))
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(3, 2)).double(), torch.randn(4, 3).double()
    net[0].held = [net[0].weight]
    states = [{"0.weight": torch.randn(2, 3).double()} for _ in range(3)]
    with DoublePrecision():
        run_at(net, {}, inputs)
        outputs = [run_at(net, state, inputs) for state in states]
    assert searched == [net]
    for state, output in zip(states, outputs, strict=True):
        assert torch.equal(output, nn.functional.linear(inputs, state["0.weight"], net[0].bias))
    net[0].weight = nn.Parameter(net[0].weight.detach().clone())
    with DoublePrecision():
        run_at(net, states[0], inputs)
    assert searched == [net, net]
