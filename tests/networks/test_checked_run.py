"""Odd networks are followed and bad ones refused, and neither is changed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sinkhorn_rebasin import (
    discover_symmetry,
    permute_state,
    random_permutations,
    verify_symmetry,
    weight_matching,
)
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from tests.rebasin.odd_networks import ODD, RANDOM, UNSUPPORTED, Auxiliary, mlp


def everything(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """What must not change, with values."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    attributes = {
        f"{path}.{name}": value if isinstance(value, (int, float, str, bool)) else (id(value), str(value))
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
    return {
        "tensors": {n: (id(t), t._version, t.requires_grad, t.detach().clone()) for n, t in tensors.items()},
        "attributes": attributes,
        "gradients": [p.grad for p in model.parameters()],
        "inputs": [t.clone() for t in tensors_in(inputs)],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
    }


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.layout != torch.strided or torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@contextmanager
def untouched(model: nn.Module, inputs: Any) -> Iterator[None]:
    before = everything(model, inputs)
    try:
        yield
    finally:
        after = everything(model, inputs)
        assert [key for key in before if not equal(before[key], after[key])] == []


def run(model: nn.Module, inputs: Any) -> Any:
    model, inputs = copy.deepcopy(model), copy.deepcopy(inputs)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_odd_networks_keep_their_function_and_are_untouched(name: str, training: bool) -> None:
    model, inputs = (make() for make in ODD[name])
    model.train(training)
    next(iter(model.parameters())).requires_grad_(False)
    with untouched(model, inputs):
        spec = discover_symmetry(model, inputs)
        assert any(group.size > 1 for group in spec.groups)
        assert verify_symmetry(model, spec, inputs) < 1e-6
        weight_matching(model, model, spec)
    assert model.training is training
    if name in ("pruned", "old weight norm"):
        return  # deepcopy, which the witness uses, refuses these
    model.eval()
    moved = copy.deepcopy(model)
    permutations = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    moved.load_state_dict(permute_state(model.state_dict(), spec, permutations))
    with torch.no_grad():
        assert largest_change(run(model, inputs), run(moved, inputs)) < (5e-2 if "16" in name else 1e-2)


@pytest.mark.parametrize("name", RANDOM)
def test_random_outputs_are_told(name: str) -> None:
    model, inputs = RANDOM[name](), torch.randn(64, 4)
    with untouched(model, inputs), pytest.raises(ArchitectureError, match="output is random"):
        discover_symmetry(model, inputs)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_no_plain_network_is_told(name: str) -> None:
    make, message = UNSUPPORTED[name]
    model = make()
    before = list(model.state_dict()), [type(p) for p in model.parameters()]
    with pytest.raises(ArchitectureError, match=message):
        discover_symmetry(model, torch.randn(5, 4))
    assert (list(model.state_dict()), [type(p) for p in model.parameters()]) == before


def test_a_lazy_network_that_has_run_is_a_network() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    model(torch.randn(2, 4))
    assert discover_symmetry(model, torch.randn(5, 4)) == discover_symmetry(mlp(), torch.randn(5, 4))


@pytest.mark.parametrize(
    "context",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16), nullcontext],
    ids=["inference", "no_grad", "autocast", "none"],
)
def test_the_caller_s_context_does_not_matter(context: Any) -> None:
    expected = discover_symmetry(mlp(), torch.randn(5, 4))
    entered: AbstractContextManager[Any] = context()
    with entered:
        model, inputs = mlp(), torch.randn(5, 4)
        grad = torch.is_grad_enabled()
        assert discover_symmetry(model, inputs) == expected
        assert verify_symmetry(model, expected, inputs) < 1e-12
        assert torch.is_grad_enabled() is grad


def test_the_caller_s_defaults_do_not_matter() -> None:
    model, inputs = Auxiliary().eval(), torch.randn(5, 4)
    expected = discover_symmetry(model, inputs)
    # Nothing can be read from the meta device: whatever is made there by mistake is an error.
    inner = nn.Sequential(*model.aux[:3], model.aux[4])
    small = discover_symmetry(inner, torch.randn(5, 8))
    torch.set_default_device("meta")
    try:
        assert discover_symmetry(inner, torch.randn(5, 8, device="cpu")) == small
        assert verify_symmetry(inner, small, torch.randn(5, 8, device="cpu")) < 1e-12
        weight_matching(inner, inner, small)
    finally:
        torch.set_default_device(None)
    torch.set_default_dtype(torch.float64)
    try:
        assert discover_symmetry(model, inputs) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_how_often_a_network_is_run() -> None:
    runs: list[bool] = []
    model = mlp()
    model.register_forward_hook(lambda module, *_: runs.append(module.training))
    spec = discover_symmetry(model, torch.randn(5, 4))
    assert runs == [False, False]
    runs.clear()
    verify_symmetry(model, spec, torch.randn(5, 4), trials=3)
    # Two a trial, and one to see by how much the output varies, but where two samples have told that it does.
    assert not any(runs)
    assert 6 < len(runs) <= 9


class WritesToItself(nn.Module):
    """Clips its weights whenever it runs, or only while it trains."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.always or self.training:
            self.first.weight.data.clamp_(-0.1, 0.1)
        return self.last(self.norm(self.first(x)).relu())


@pytest.mark.parametrize("always", [True, False])
def test_a_network_that_writes_to_its_parameters_keeps_them(always: bool) -> None:
    model = WritesToItself(always)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spec = discover_symmetry(model, torch.randn(5, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [(group.name, group.size) for group in spec.groups] == [("first", 6)]
    assert {"norm.running_mean", "norm.running_var"} <= {slot.tensor for slot in spec.slots}
