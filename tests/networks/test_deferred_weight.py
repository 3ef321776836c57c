"""A deferred weight is multiplied with few rows, and is the weight itself for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.networks.deferred_weight import deferred_weight, formed


class Counted:
    """The same weight both ways, and how often each was asked for."""

    def __init__(self, rows: int = 8) -> None:
        generator = torch.Generator().manual_seed(0)
        self.leaf = torch.randn(5, 4, generator=generator).double().requires_grad_()
        self.shift = torch.randn(5, generator=generator).double().requires_grad_()
        self.products = self.forms = 0
        self.bias = deferred_weight(self.shift, [self.shift], lambda: self.form(3 * self.shift))
        self.weight = deferred_weight(
            self.leaf, [self.leaf], lambda: self.form(2 * self.leaf), self.product, rows, self.bias
        )

    def form(self, tensor: Tensor) -> Tensor:
        self.forms += 1
        return tensor

    def product(self, inputs: Tensor, biased: bool) -> Tensor:
        self.products += 1
        found = 2 * (inputs @ self.leaf.mT)
        return found + 3 * self.shift if biased else found


def inputs(rows: int) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1)).double()


def test_few_rows_are_multiplied_and_many_are_not() -> None:
    for rows, way in ((8, (1, 0)), (9, (0, 2))):
        counted = Counted()
        found = F.linear(inputs(rows), counted.weight, counted.bias)
        torch.testing.assert_close(found, F.linear(inputs(rows), 2 * counted.leaf, 3 * counted.shift))
        assert (counted.products, counted.forms) == way
        gradients = torch.autograd.grad(found.sum(), [counted.leaf, counted.shift])
        torch.testing.assert_close(gradients[1], torch.full_like(counted.shift, 3.0 * rows))
        torch.testing.assert_close(gradients[0], 2 * inputs(rows).sum(0).expand(5, 4))


def test_biases_of_other_layers_are_added() -> None:
    counted, other = Counted(), torch.ones(5).double()
    found = F.linear(inputs(2), counted.weight, other)
    torch.testing.assert_close(found, F.linear(inputs(2), 2 * counted.leaf, other))
    stranger = Counted().bias
    torch.testing.assert_close(F.linear(inputs(2), counted.weight, stranger), found - 1 + stranger.whole())


@pytest.mark.parametrize(
    "use",
    [
        lambda w: w * 1,
        lambda w: w.detach() + w - w.detach(),
        lambda w: F.linear(inputs(2), w.t()[:, :4].t()).sum() + w,
        lambda w: torch.stack([w, w])[0],
        lambda w: w.view(4, 5),
        lambda w: torch.einsum("ab,cb->ac", w, w),
    ],
)
def test_everything_else_has_the_weight(use: Callable[[Tensor], Tensor]) -> None:
    counted = Counted()
    deferred, plain = use(counted.weight), use(2 * counted.leaf)
    assert type(deferred) is Tensor
    torch.testing.assert_close(deferred, plain)
    found = [torch.autograd.grad(each.square().sum(), counted.leaf)[0] for each in (deferred, plain)]
    torch.testing.assert_close(*found)


def test_a_weight_that_was_changed_stays_changed() -> None:
    counted = Counted()
    with torch.no_grad():
        counted.weight.zero_()
    assert not F.linear(inputs(2), counted.weight).any()
    assert counted.products == 0


def test_a_weight_formed_without_gradients_has_them() -> None:
    counted = Counted()
    with torch.no_grad():
        assert float(counted.weight.sum()) == pytest.approx(float(2 * counted.leaf.sum()))
    (gradient,) = torch.autograd.grad(F.linear(inputs(2), counted.weight).sum(), counted.leaf)
    torch.testing.assert_close(gradient, 2 * inputs(2).sum(0).expand(5, 4))


def test_asking_for_shape_and_type_forms_nothing() -> None:
    counted = Counted()
    assert counted.weight.shape == (5, 4)
    assert counted.weight.dtype == torch.float64
    assert counted.weight.requires_grad
    assert counted.forms == 0


def test_under_autocast_and_in_transforms_the_weight_decides() -> None:
    counted, given = Counted(), inputs(2).float()
    leaf = counted.leaf.float()
    weight = deferred_weight(leaf, [leaf], lambda: 2 * leaf, counted.product, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.linear(given, weight).dtype == torch.bfloat16
    assert counted.products == 0
    rows = torch.func.vmap(lambda one: (one * counted.weight).sum(1))(inputs(3))
    torch.testing.assert_close(rows, inputs(3) @ (2 * counted.leaf).mT)


def test_layers_run_with_them_and_what_keeps_them_has_them_formed() -> None:
    counted, layer = Counted(), nn.Linear(4, 5).double()
    found = functional_call(layer, {"weight": counted.weight, "bias": counted.bias}, inputs(3))
    assert (counted.products, counted.forms) == (1, 0)
    whole = formed({"weight": counted.weight, "bias": counted.bias})
    assert all(type(tensor) is Tensor for tensor in whole.values())
    torch.testing.assert_close(found, functional_call(layer, whole, inputs(3)))


class OwnProduct(torch.autograd.Function):
    """A product that comes past functions of torch."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return rows @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        return gradient @ weight, gradient.t() @ rows


@pytest.mark.parametrize("by", ["grad", "backward"])
def test_gradients_of_autograd_functions_reach_the_sources(by: str) -> None:
    counted = Counted()
    found = OwnProduct.apply(inputs(3), counted.weight).square().sum()
    expected = (inputs(3) @ (2 * counted.leaf).mT).square().sum()
    (wanted,) = torch.autograd.grad(expected, counted.leaf)
    if by == "grad":
        (gradient,) = torch.autograd.grad(found, counted.leaf)
    else:
        found.backward()
        gradient = counted.leaf.grad
    torch.testing.assert_close(gradient, wanted)


class Transforming(nn.Module):
    """Runs its wide layer under vmap, row by row, or by a function of its own."""

    def __init__(self, seed: int, own: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.wide, self.last = nn.Linear(4, 256), nn.Linear(256, 256), nn.Linear(256, 2)
        self.own = own

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.first(rows).relu()
        if self.own:
            hidden = OwnProduct.apply(hidden, self.wide.weight) + self.wide.bias
        else:
            hidden = torch.vmap(self.wide)(hidden)
        return self.last(hidden.relu())


@pytest.mark.parametrize("own", [True, False])
def test_networks_with_transforms_and_functions_of_their_own_have_right_gradients(own: bool) -> None:
    networks = [Transforming(seed, own) for seed in (0, 1)]
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    rebasin = sr.SinkhornRebasin(*networks, rows)
    found = []
    for _ in range(2):  # the first run is watched, and forms every weight
        rebasin.zero_grad()
        rebasin(rows, 0.5).square().sum().backward()
        found.append([p.grad.clone() for p in rebasin.parameters() if p.grad is not None])
    rebasin.zero_grad()
    functional_call(networks[0], rebasin.state_at(0.5), (rows,)).square().sum().backward()
    expected = [p.grad for p in rebasin.parameters() if p.grad is not None]
    for gradients in found:
        assert len(gradients) == len(expected) > 0
        for gradient, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
