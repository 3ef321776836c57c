"""A rule belongs to an operation of ATen; custom ones have none until they are told one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import RuleError
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from sinkhorn_rebasin.symmetry.rules import registry
from tests.symmetry.witness import difference
from tests.zoo.case import Function

LIBRARY = "rebasin_tests"


@torch.library.custom_op(f"{LIBRARY}::glu", mutates_args=())
def interleaved_glu(self: Tensor, dim: int) -> Tensor:
    return self[..., ::2] * self[..., 1::2].sigmoid()


@torch.library.custom_op(f"{LIBRARY}::mean", mutates_args=())
def weighted_mean(self: Tensor) -> Tensor:
    return (self * torch.arange(self.shape[-1])).mean(-1, keepdim=True)


@torch.library.custom_op(f"{LIBRARY}::dropout", mutates_args=())
def first_half(self: Tensor) -> Tensor:
    return self * (torch.arange(self.shape[-1]) < self.shape[-1] // 2)


@torch.library.custom_op(f"{LIBRARY}::gelu", mutates_args=(), tags=(torch.Tag.pointwise,))
def cumulated(self: Tensor) -> Tensor:
    return self.cumsum(-1)


@torch.library.custom_op(f"{LIBRARY}::add", mutates_args=())
def reversed_sum(self: Tensor, other: Tensor) -> Tensor:
    return self + other.flip(-1)


@torch.library.custom_op(f"{LIBRARY}::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    return x * x.sigmoid()


OPERATIONS = torch.ops.rebasin_tests


@pytest.fixture(autouse=True)
def _rules_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


def network(operation, width: int = 8) -> nn.Module:
    return Function(
        lambda net, x: net.b(operation(net.a(x))), a=nn.Linear(4, 8), b=nn.Linear(width, 2)
    ).double()


@pytest.mark.parametrize(
    ("operation", "width"),
    [
        (lambda h: OPERATIONS.glu(h, -1), 4),
        (lambda h: h.relu() + OPERATIONS.mean(h), 8),
        (OPERATIONS.dropout, 8),
        (OPERATIONS.gelu, 8),
        (lambda h: OPERATIONS.add(h, h.relu()), 8),
        (OPERATIONS.swish, 8),
    ],
)
def test_a_custom_operation_is_not_taken_for_one_of_aten(operation, width: int) -> None:
    model = network(operation, width)
    spec = discover_symmetry(model, torch.randn(5, 4).double())
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(9, 4).double()) < 1e-12
    assert any("there is no rule for it" in item.reason for item in spec.frozen)


@pytest.mark.parametrize(
    "acts_as",
    ["gelu", "pointwise", lambda tape, call: tape.labels(call["x"])],
    ids=["gelu", "pointwise", "rule"],
)
def test_a_custom_operation_may_be_told_how_it_acts(acts_as) -> None:
    sr.register_rule(f"{LIBRARY}::swish", acts_as)
    model = network(OPERATIONS.swish)
    spec = discover_symmetry(model, torch.randn(5, 4).double())
    assert [group.size for group in spec.groups] == [8]
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(9, 4).double()) < 1e-12


@pytest.mark.parametrize(
    ("operation", "acts_as", "message"),
    [
        ("swish", "pointwise", "full name of a custom operation.*'swish'"),
        ("aten::relu", "pointwise", "full name of a custom operation.*'aten::relu'"),
        (f"{LIBRARY}::swish", "swoosh", "an operation of ATen that has a rule but got 'swoosh'"),
    ],
)
def test_rules_that_cannot_be(operation: str, acts_as: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        sr.register_rule(operation, acts_as)
