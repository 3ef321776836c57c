"""What functionalisation cannot do is no reason to refuse a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.symmetry.witness import difference
from tests.zoo.case import Function

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


class Doubles(torch.autograd.Function):
    """Doubles the first two units, by a write in place; its context is set up apart."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :2] *= 2
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class DoublesForVmap(Doubles):
    generate_vmap_rule = True


class DoublesTheOldWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Doubles.forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class StraightThrough(torch.autograd.Function):
    """A step whose derivative is one: it is not the derivative of what it computes."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sign() * x.square()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@torch.library.custom_op("followed_in_tests::double", mutates_args=("x",))
def double(x: Tensor) -> None:
    x.mul_(2)


def hidden(net: Any, x: Tensor) -> Tensor:
    return net.a(x).relu()


def without_diagonal(net: Any, x: Tensor) -> Tensor:
    products = net.a.weight @ net.a.weight.T
    products.fill_diagonal_(0)
    return net.b(hidden(net, x) @ products)


def custom_write(net: Any, x: Tensor) -> Tensor:
    y = hidden(net, x).clone()
    double(y)
    return net.b(y)


def jagged(net: Any, x: Tensor) -> Tensor:
    rows = torch.nested.nested_tensor([x[:1], x[1:]], layout=torch.jagged)
    return net.b(torch.cat(list(net.a(rows).relu().unbind())))


def nested(net: Any, x: Tensor) -> Tensor:
    rows = torch.nested.nested_tensor([x[:1], x[1:]])
    return net.b(torch.cat(list(net.a(rows).relu().unbind())))


def padded(net: Any, x: Tensor) -> Tensor:
    rows = torch.nested.as_nested_tensor([hidden(net, x[:1]), hidden(net, x[1:])])
    return net.b(rows.to_padded_tensor(0.0)).sum(0)


def functionalised(net: Any, x: Tensor) -> Tensor:
    return net.b(torch.func.functionalize(lambda y: y.clone().add_(1))(hidden(net, x)))


def derivative(net: Any, x: Tensor) -> Tensor:
    """The derivative of a sum of squares is twice what is squared, only because the function says so."""
    slopes = torch.func.grad(lambda y: (StraightThrough.apply(y) * y).sum())(net.a(x))
    return net.b(slopes)


def pieces(net: Any, x: Tensor) -> Tensor:
    """Two halves put into empty memory, beside a derivative that wants the writes left in."""
    h = hidden(net, x)
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        slopes = torch.autograd.grad(y.square().sum(), y)[0]
    out = torch.empty_like(h)
    out[:, :2].copy_(h[:, :2])
    out[:, 2:].copy_(h[:, 2:] * 2)
    return net.b(out) + slopes.sum(1, keepdim=True)


def memory(net: Any, x: Tensor) -> Tensor:
    """Memory copied past PyTorch, which functionalisation does not see."""
    h, out = hidden(net, x), torch.zeros(len(x), 8, dtype=x.dtype)
    out.untyped_storage().copy_(h.untyped_storage())
    return net.b(out)


# What is found by hand; None where everything that takes part may be frozen.
NETWORKS: dict[str, tuple[Callable[..., Tensor], list[int] | None]] = {
    "new function": (lambda net, x: net.b(Doubles.apply(net.a(x))), [2, 6]),
    "function for vmap": (lambda net, x: net.b(DoublesForVmap.apply(net.a(x))), [2, 6]),
    "old function": (lambda net, x: net.b(DoublesTheOldWay.apply(net.a(x))), [2, 6]),
    "mapped function": (
        lambda net, x: net.b(torch.vmap(lambda row: DoublesForVmap.apply(row[None])[0])(net.a(x))),
        [2, 6],
    ),
    "function and derivative": (derivative, [8]),
    "functionalised": (functionalised, [8]),
    "jagged": (jagged, [8]),
    "nested": (nested, None),
    "padded": (padded, None),
    "diagonal": (without_diagonal, None),
    "custom write": (custom_write, None),
    "pieces": (pieces, None),
    "memory": (memory, None),
}


@pytest.mark.filterwarnings("ignore:Expected Function")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_followed_or_frozen(name: str) -> None:
    torch.manual_seed(0)
    run, expected = NETWORKS[name]
    model, x = Function(run, a=nn.Linear(3, 8), b=nn.Linear(8, 2)).double(), torch.randn(4, 3).double()
    spec = discover_symmetry(model, x)
    if expected is not None:
        assert sorted(group.size for group in spec.groups) == expected
    assert all(item.reason for item in spec.frozen)
    assert verify_symmetry(model, spec, x) < 1e-12
    for _ in range(3):
        moved = permute_state(model.state_dict(), spec, random_permutations(spec))
        assert difference(model, moved, torch.randn(4, 3).double()) < 1e-12
