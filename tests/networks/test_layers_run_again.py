"""Layers that run again in the backward pass find the weights of their forward."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy
from tests.run_again import REENTRANT, WAYS, Net, data, networks


def mixture(first: Net, second: Net, weight: Tensor) -> dict[str, Tensor]:
    """The state between two networks, all of it from one tensor by operations that save what they multiply."""
    start, end = first.state_dict(), second.state_dict()
    return {name: torch.lerp(start[name], end[name], weight.square()) for name in start}


def gradients(way: str | None, runs: int = 1, seen: str = "frozen") -> list[Tensor]:
    """The gradients of mixing weights of some runs whose losses are differentiated together."""
    (first, second), (x, _) = networks(way), data()
    module = {"frozen": frozen_copy(first), "own": first}[seen]
    weights = [torch.tensor(0.3 + 0.2 * i, dtype=torch.double, requires_grad=True) for i in range(runs)]
    losses = [run_at(module, mixture(first, second, w), x + i).square().mean() for i, w in enumerate(weights)]
    torch.stack(losses).sum().backward()
    return [w.grad for w in weights]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seen", ["frozen", "own"])
def test_gradients_are_those_of_layers_that_run_once(way: str, seen: str) -> None:
    torch.testing.assert_close(gradients(way, seen=seen), gradients(None))


@pytest.mark.parametrize("way", WAYS)
def test_several_runs_in_one_graph(way: str) -> None:
    torch.testing.assert_close(gradients(way, runs=3), gradients(None, runs=3))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("way", WAYS)
def test_steps_one_after_another_and_a_run_between_forward_and_backward(way: str) -> None:
    found: dict[str | None, list[Tensor]] = {None: [], way: []}
    for kind, steps in found.items():
        (first, second), (x, _) = networks(kind), data()
        module = frozen_copy(first)
        for step in range(3):
            weight = torch.tensor(0.2 * step + 0.1, dtype=torch.double, requires_grad=True)
            loss = run_at(module, mixture(first, second, weight), x).square().mean()
            with torch.no_grad():
                run_at(module, second.state_dict(), x)
            loss.backward()
            steps.append(weight.grad)
    torch.testing.assert_close(found[way], found[None])


@pytest.mark.parametrize("way", WAYS)
def test_neither_network_nor_state_is_changed(way: str) -> None:
    (first, second), (x, _) = networks(way), data()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    attributes = {name: dict(vars(child)) for name, child in first.named_modules()}
    state = {name: value.clone().requires_grad_() for name, value in second.state_dict().items()}
    run_at(first, state, x).square().mean().backward()
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all(vars(child).keys() == attributes[name].keys() for name, child in first.named_modules())
    assert all(value.grad is not None for value in state.values())


@pytest.mark.parametrize("way", sorted(WAYS.keys() - REENTRANT - {"reversible", "selective"}))
def test_gradients_of_gradients(way: str) -> None:
    found = []
    for kind in (way, None):
        (first, second), (x, _) = networks(kind), data()
        weight = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
        loss = run_at(frozen_copy(first), mixture(first, second, weight), x).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        found.append(torch.autograd.grad(gradient, weight)[0])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("way", ["whole, reentrant", "reversible"])
def test_gradients_of_gradients_are_refused_where_they_would_be_wrong(way: str) -> None:
    (first, second), (x, _) = networks(way), data()
    weight = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    loss = run_at(frozen_copy(first), mixture(first, second, weight), x).square().mean()
    with pytest.raises(ArchitectureError, match=r"again in the backward pass.*use_reentrant=False"):
        loss.backward(create_graph=True)


def test_gradients_of_inputs_alone() -> None:
    found = []
    for kind in ("whole", "whole, reentrant", None):
        (first, second), (x, _) = networks(kind), data()
        x.requires_grad_()
        run_at(frozen_copy(first), second.state_dict(), x).square().mean().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


class Sometimes(nn.Module):
    """Runs its layer again for long inputs alone, or in training mode alone."""

    def __init__(self, way: str | None) -> None:
        super().__init__()
        self.inside, self.plain, self.kind = Net(WAYS[way] if way else None), Net(), way

    def forward(self, x: Tensor) -> Tensor:
        return (self.inside if len(x) > 8 or self.training else self.plain)(x)


@pytest.mark.parametrize("way", ["whole", "each, reentrant"])
def test_layers_that_run_again_for_some_inputs_and_modes_only(way: str) -> None:
    found = []
    for kind in (way, None):
        torch.manual_seed(0)
        module, x = Sometimes(kind).double().eval(), data()[0]
        weight = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
        for size, mode in ((6, False), (6, False), (12, False), (6, True), (12, False), (6, False)):
            module.train(mode)
            state = {name: value * weight.square() for name, value in module.state_dict().items()}
            run_at(module, state, x[:size]).square().mean().backward()
        found.append(weight.grad)
    torch.testing.assert_close(found[0], found[1])


def test_what_ran_is_let_go_with_its_graph() -> None:
    (first, second), (x, _) = networks("whole"), data()
    weight = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    state = mixture(first, second, weight)
    kept = weakref.ref(state["last.weight"])
    loss = run_at(frozen_copy(first), state, x).square().mean()
    del state
    loss.backward()
    del loss
    gc.collect()
    assert kept() is None


def test_networks_whose_layers_run_once_are_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from sinkhorn_rebasin.networks import lending

    runs = []
    real = lending.private_run
    monkeypatch.setattr(lending, "private_run", lambda *a, **o: runs.append(0) or real(*a, **o))
    (first, second), (x, _) = networks(None), data()
    module, weight = frozen_copy(first), torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    for _ in range(4):
        run_at(module, mixture(first, second, weight), x)
    assert len(runs) == 1
