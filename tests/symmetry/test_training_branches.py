"""Branches of training mode: their parameters move with the hidden units they read."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations, verify_symmetry
from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from tests.rebasin.odd_networks import Auxiliary, mlp
from tests.zoo.case import Function, randomise


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def still(model: nn.Module) -> nn.Module:
    """In training mode, with the chance that is left in Auxiliary taken out by hand."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("batch", [5, 1])
def test_an_auxiliary_head_moves_along(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(Auxiliary())
    spec = discover_symmetry(model, torch.randn(batch, 4))
    assert {(group.size, group.blocks) for group in spec.groups} == {(8, 1), (6, 1), (5, 1)}
    on = {slot.tensor for slot in spec.slots_of("a")}
    assert on == {"a.weight", "a.bias", "b.weight", "aux.0.weight", *(f"norm.{n}" for n in spec_names())}
    assert {slot.tensor for slot in spec.slots_of("aux/0")} == {
        "aux.0.weight", "aux.0.bias", "aux.4.weight", *(f"aux.1.{n}" for n in spec_names()),
    }  # fmt: skip
    moved = copy.deepcopy(model)
    moved.load_state_dict(permute_state(model.state_dict(), spec, random_permutations(spec)))
    for name in ("dropout", "dropout1d"):
        monkeypatch.setattr(f"torch.nn.functional.{name}", lambda x, *_: x)
    monkeypatch.setattr(Tensor, "bernoulli_", lambda tensor, p: tensor.fill_(1.0))
    monkeypatch.setattr(torch, "rand", torch.ones)
    x = torch.randn(16, 4).double()
    with torch.no_grad():
        before, after = (still(net.double())(x) for net in (model, moved))
    assert largest_change(before, after) < 1e-12


def spec_names() -> tuple[str, ...]:
    return ("weight", "bias", "running_mean", "running_var")


def test_verification_sees_training_mode() -> None:
    model, inputs = randomise(Auxiliary()), torch.randn(5, 4)
    spec = discover_symmetry(model, inputs)
    assert verify_symmetry(model, spec, inputs) < 1e-12
    state = torch.get_rng_state()
    for wrong in (
        slot for slot in spec.slots if slot.tensor in ("aux.0.weight", "aux.0.bias", "aux.4.weight")
    ):
        broken = replace(spec, slots=tuple(slot for slot in spec.slots if slot != wrong))
        with pytest.raises(SymmetryError, match=f"in training mode .*'{wrong.group}'"):
            verify_symmetry(model, broken, inputs)
    assert torch.equal(torch.get_rng_state(), state)


def test_unused_parameters_are_left_alone() -> None:
    model = Function(lambda n, x: n.used(x), used=mlp(), unused=nn.Sequential(*mlp(), nn.BatchNorm1d(3)))
    spec = discover_symmetry(model, torch.randn(5, 4))
    assert spec.names == ["used/0"]
    assert {item.reason for item in spec.frozen if item.tensor == "unused.0.weight"} == {
        "no operation used the tensor"
    }
    assert verify_symmetry(model, spec, torch.randn(5, 4)) < 1e-12


def test_a_network_without_a_training_mode_has_that_of_eval_mode() -> None:
    def run(net: nn.Module, x: Tensor) -> Tensor:
        if net.training:
            raise RuntimeError("labels are missing")
        return net.used(x)

    model = Function(run, used=mlp(), unused=mlp())
    spec = discover_symmetry(model, torch.randn(5, 4))
    assert spec.names == ["used/0"]
    assert verify_symmetry(model, spec, torch.randn(5, 4)) < 1e-12


def test_training_mode_is_run_only_when_it_has_something_to_say() -> None:
    runs: list[bool] = []
    model = Function(lambda n, x: n.used(x), used=mlp())
    model.register_forward_hook(lambda module, *_: runs.append(module.training))
    discover_symmetry(model, torch.randn(5, 4))
    assert not any(runs)
    model.unused = mlp()
    discover_symmetry(model, torch.randn(5, 4))
    assert any(runs)


def test_what_a_training_branch_reads_in_order_stays() -> None:
    model = Function(
        lambda n, x: (n.b(h := n.a(x).relu()), n.c(h.cumsum(-1)) if n.training else None),
        a=nn.Linear(4, 8), b=nn.Linear(8, 3), c=nn.Linear(8, 2),
    )  # fmt: skip
    spec = discover_symmetry(model, torch.randn(5, 4))
    assert not spec.groups
    assert any("cumsum" in item.reason for item in spec.frozen if item.tensor == "a.weight")
