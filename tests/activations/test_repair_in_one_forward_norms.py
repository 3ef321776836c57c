"""REPAIR in one forward of networks with batch norm and of several batches, against a repair written out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry, repair
from tests.activations.repair_problems import batches, merge, pair
from tests.activations.test_repair_in_one_forward import forwards
from tests.zoo.case import Function

one_forward = importlib.import_module("sinkhorn_rebasin.activations.repair_in_one_forward")


def dilated() -> nn.Module:
    """Norm, activation, convolution along a signal; layers right in front of no norm in between."""

    def run(net: Function, x: Tensor) -> Tensor:
        stream = net.inward(x[:, None])
        skipped = net.skip(stream)
        inside = net.first(net.norms[0](stream).relu())
        stream = stream + net.second(net.norms[1](inside).relu())
        return net.outward((skipped + net.last(stream)).relu()).mean(-1)

    wide = {"padding": "same", "dilation": 2}
    layers = {"first": nn.Conv1d(6, 7, 3, **wide), "second": nn.Conv1d(7, 6, 3, **wide)}
    layers |= {"skip": nn.Conv1d(6, 8, 1), "last": nn.Conv1d(6, 8, 1), "outward": nn.Conv1d(8, 2, 1)}
    norms = nn.ModuleList([nn.BatchNorm1d(6), nn.BatchNorm1d(7)])
    return Function(run, inward=nn.Conv1d(1, 6, 1), norms=norms, **layers)


# The norms take what `inward` and `first` give.
ORDER = ("skip", "norms.0", "norms.1", "second", "last")


def seen(net: nn.Module, name: str, data: list[Any], *, inputs: bool) -> Tensor:
    """What a layer gives or takes, (units, values)."""
    found: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_hook(
        lambda _, given, output: found.append(given[0] if inputs else output)
    )
    with torch.no_grad():
        for x in data:
            net(x)
    handle.remove()
    return torch.cat([part.transpose(0, 1).flatten(1) for part in found], 1)


@torch.no_grad()
def repaired_by_hand(
    merged: nn.Module, reference: nn.Module, target: nn.Module, data: list[Any]
) -> nn.Module:
    """One layer after the other, by the formula of the paper."""
    for name in ORDER:
        layer = merged.get_submodule(name)
        if isinstance(layer, nn.BatchNorm1d):
            values = seen(merged, name, data, inputs=True)
            layer.running_mean, layer.running_var = values.mean(1), values.var(1)
            continue
        now, first, second = (seen(net, name, data, inputs=False) for net in (merged, reference, target))
        scale = (first.std(1) + second.std(1)) / 2 / now.std(1)
        layer.weight *= scale[:, None, None]
        layer.bias.copy_((layer.bias - now.mean(1)) * scale + (first.mean(1) + second.mean(1)) / 2)
    return merged


@pytest.mark.parametrize("sizes", [(40,), (12, 8, 20)], ids=["one", "several"])
def test_each_batch_runs_once_and_gives_what_is_written_out(sizes: tuple[int, ...]) -> None:
    reference, target = pair(dilated)
    data = batches(*sizes)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    counted = forwards(merged)
    before = [x.clone() for x in data]
    found = repair(merged, reference, target, spec, data)
    assert len(counted) == 1 + len(data)  # the order of the layers, and each batch once
    expected = repaired_by_hand(merge(reference, target), reference, target, data)
    for name, tensor in expected.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)
    assert all(map(torch.equal, data, before))
    assert not torch.allclose(found.last.weight, merge(reference, target).last.weight)


def _same_as_layer_by_layer(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch, data: list[Any], together: bool
) -> None:
    reference, target = pair(make)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    counted = forwards(merged)
    found = repair(merged, reference, target, spec, data)
    assert (len(counted) == 1 + len(data)) == together
    module = importlib.import_module("sinkhorn_rebasin.activations.repair")
    monkeypatch.setattr(module, "corrected_in_one_forward", lambda *_: None)
    expected = repair(merged, reference, target, spec, data)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-10, atol=1e-10)


def norm_that_runs_twice() -> nn.Module:
    """The statistics are those of both runs."""
    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 2)}
    return Function(lambda n, x: n.c(n.b(n.norm(n.norm(n.a(x)).relu()).relu()).relu()), **layers)


def statistics_read_outside() -> nn.Module:
    """A mean is read before its norm runs."""
    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 2)}
    return Function(lambda n, x: n.c(n.b(n.norm(n.a(x) + n.norm.running_mean).relu()).relu()), **layers)


def a_layer_that_some_batches_skip() -> nn.Module:
    """Batches of fewer than ten samples do not reach the second layer."""

    def run(net: Function, x: Tensor) -> Tensor:
        hidden = net.norm(net.a(x)).relu()
        return net.c(net.d(net.b(hidden).relu() if len(x) >= 10 else hidden).relu())

    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6)}
    return Function(run, **layers, d=nn.Linear(6, 6), c=nn.Linear(6, 2))


def layers_in_another_order() -> nn.Module:
    """Small batches take the second layer first."""

    def run(net: Function, x: Tensor) -> Tensor:
        first, second = (net.b, net.d) if len(x) >= 10 else (net.d, net.b)
        return net.c(second(first(net.norm(net.a(x)).relu()).relu()).relu())

    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6)}
    return Function(run, **layers, d=nn.Linear(6, 6), c=nn.Linear(6, 2))


def noise() -> nn.Module:
    """Draws at random in eval mode too, for small batches."""

    def run(net: Function, x: Tensor) -> Tensor:
        hidden = net.norm(net.a(x)).relu()
        return net.c(net.b(F.dropout(hidden, 0.3) if len(x) < 15 else hidden).relu())

    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 2)}
    return Function(run, **layers)


def weights_that_lie_in_a_list_too() -> nn.Module:
    """Such a network runs on a copy that keeps its weights."""
    layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 2)}
    net = Function(lambda n, x: n.c(n.b(n.norm(n.a(x).relu()).relu()).relu()), **layers)
    net.held = [net.b.weight, net.b.bias]
    return net


CASES = [
    (norm_that_runs_twice, False),
    (statistics_read_outside, False),
    (a_layer_that_some_batches_skip, True),
    (layers_in_another_order, False),
    (noise, False),
    (weights_that_lie_in_a_list_too, True),
]


@pytest.mark.parametrize(("make", "together"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_read_at_once_is_read_one_after_the_other(
    make: Any, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _same_as_layer_by_layer(make, monkeypatch, batches(20, 8, 12), together)


def test_batches_that_take_too_much_memory_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_forward, "MOST_BYTES", 1000)
    _same_as_layer_by_layer(dilated, monkeypatch, batches(20, 8, 12), together=False)


def test_many_batches_of_one_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _same_as_layer_by_layer(dilated, monkeypatch, batches(*[1] * 200), together=True)


def test_batches_without_a_thread_each_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = Thread.start, []

    def limited(self: Thread) -> None:
        started.append(self)
        if len(started) > 2:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(Thread, "start", limited)
    _same_as_layer_by_layer(dilated, monkeypatch, batches(20, 8, 12), together=False)
    assert len(started) == 3
    assert not any(thread.is_alive() for thread in started)


def test_one_large_batch_needs_no_more_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_forward, "MOST_BYTES", 1000)
    _same_as_layer_by_layer(dilated, monkeypatch, batches(40), together=True)


def test_errors_of_a_batch_are_its_own() -> None:
    class Odd(Exception):
        pass

    def make() -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            hidden = net.b(net.norm(net.a(x)).relu()).relu()
            if x[0, 0] == 9.0 and not calls.append(1) and len(calls) > 2:
                raise Odd
            return net.c(hidden)

        layers = {"a": nn.Linear(5, 6), "norm": nn.BatchNorm1d(6), "b": nn.Linear(6, 6)}
        return Function(run, **layers, c=nn.Linear(6, 2))

    calls: list[int] = []
    reference, target = pair(make)
    data = batches(8, 8, 8)
    spec = discover_symmetry(reference, data[0])
    data[1][0, 0] = 9.0
    with pytest.raises(Odd):
        repair(merge(reference, target), reference, target, spec, data)
