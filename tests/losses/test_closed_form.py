"""Values and gradients in closed form, against autograd through the weights."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.closed_form import ClosedForm
from sinkhorn_rebasin.losses.weight_products import OneSide, every
from tests.rebasin.rebasin_problems import NETWORKS, inputs, mlp


class Convolutions(nn.Module):
    """Wide and narrow convolutions, and a linear layer on flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 7, 3), nn.Conv2d(7, 4, 1)
        self.out = nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.c(self.b(self.a(x).relu()).relu()).flatten(1))


PAIRS = {**NETWORKS, "convolutions": (Convolutions, lambda: torch.randn(2, 2, 6, 6))}


def soft(name: str, temperature: float = 0.5) -> SinkhornRebasin:
    """Two networks at scores that are far from any permutation, in double precision."""
    torch.manual_seed(3)
    build, example = PAIRS[name]
    pair = [build().double() for _ in range(2)]
    given = torch.utils._pytree.tree_map(lambda t: t.double() if t.is_floating_point() else t, example())
    return SinkhornRebasin(
        *pair, given, start="identity", noise=0.5, temperature=temperature, tolerance=1e-12
    )


def witness(rebasin: SinkhornRebasin, kind: str) -> Tensor:
    """The loss from its formula, through the re-based weights."""
    moved, fixed = rebasin.rebased_state(), rebasin.reference_state()
    names = list(rebasin.spec.compared)
    elements = sum(fixed[name].numel() for name in names)
    if kind == "l2":
        return sum(((moved[n] - fixed[n]) ** 2).sum() for n in names) / elements
    still = rebasin.target_state()
    parts = [(still[n] ** 2).sum() + (fixed[n] ** 2).sum() - 2 * (moved[n] * fixed[n]).sum() for n in names]
    return sum(parts) / elements


def gradients(rebasin: SinkhornRebasin, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(rebasin.scores.values())))


@pytest.mark.parametrize("kind", ["l2", "inner"])
@pytest.mark.parametrize("name", PAIRS)
def test_value_and_gradient_are_those_of_autograd(name: str, kind: str) -> None:
    rebasin = soft(name)
    expected = witness(rebasin, kind)
    found = WeightDistance(kind)(rebasin)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    for one, other in zip(gradients(rebasin, found), gradients(rebasin, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * float(other.abs().max()))


@pytest.mark.parametrize("kind", ["l2", "inner"])
def test_second_derivatives_are_those_of_autograd(kind: str) -> None:
    rebasin = soft("mlp")
    found = []
    for loss in (WeightDistance(kind)(rebasin), witness(rebasin, kind)):  # type: ignore[arg-type]
        scores = list(rebasin.scores.values())
        first = torch.autograd.grad(loss, scores, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), scores))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * float(other.abs().max()))


def test_inner_is_l2_at_hard_permutations_and_more_than_it_at_soft_ones() -> None:
    rebasin = soft("residual")
    assert float(WeightDistance("inner")(rebasin).detach()) > float(WeightDistance("l2")(rebasin).detach())
    rebasin.eval()
    assert float(WeightDistance("inner")(rebasin)) == pytest.approx(float(WeightDistance("l2")(rebasin)))


@pytest.mark.parametrize("name", ["mlp", "convolutions"])
def test_a_fraction_of_the_columns_is_unbiased(name: str) -> None:
    spec, matrices = soft(name).acting()  # type: ignore[misc]
    matrices = {name: matrix.detach().requires_grad_() for name, matrix in matrices.items()}
    states = [PAIRS[name][0]().double().state_dict() for _ in range(2)]
    form = ClosedForm(*states, spec, spec.compared, torch.float64, bilinear=True)
    generator = torch.Generator().manual_seed(0)

    def some(count: int, device: torch.device) -> Tensor:
        return torch.randperm(count, generator=generator)[: count // 2]

    loss, given = form(matrices, every), list(matrices.values())
    exact = [loss, *torch.autograd.grad(loss, given)]
    draws = []
    for _ in range(300):
        loss = form(matrices, some)
        draws.append([loss, *torch.autograd.grad(loss, given)])
    for number, true in enumerate(exact):
        values = torch.stack([draw[number].detach() for draw in draws])
        spread = values.std(0).norm() / len(draws) ** 0.5
        assert spread > 0
        assert (values.mean(0) - true).norm() < 3 * spread


@pytest.mark.parametrize("name", ["mlp", "convolutions"])
def test_a_fraction_of_the_columns_is_exact_at_uniform_matrices(name: str) -> None:
    spec, matrices = soft(name).acting()  # type: ignore[misc]
    uniform = {
        name: torch.full_like(matrix, 1 / matrix.shape[-1]).requires_grad_()
        for name, matrix in matrices.items()
    }
    states = [PAIRS[name][0]().double().state_dict() for _ in range(2)]
    form = ClosedForm(*states, spec, spec.compared, torch.float64, bilinear=True)

    def first(count: int, device: torch.device) -> Tensor:
        return torch.arange(max(1, count // 4))

    found, exact = (
        torch.autograd.grad(form(uniform, picked), list(uniform.values())) for picked in (first, every)
    )
    assert max(float(gradient.abs().max()) for gradient in exact) > 1e-6
    torch.testing.assert_close(found, exact)


def test_all_columns_count_in_the_last_tenth_and_in_every_step_without_a_fraction() -> None:
    rebasin = soft("mlp")
    exact = gradients(rebasin, WeightDistance("inner")(rebasin))
    loss = WeightDistance("inner", fraction=0.3)
    assert not torch.equal(gradients(rebasin, loss(rebasin))[0], exact[0])
    loss.progress = 0.9
    torch.testing.assert_close(gradients(rebasin, loss(rebasin)), exact)


@pytest.mark.parametrize("kind", ["l2", "inner"])
def test_weights_that_change_are_seen(kind: str) -> None:
    rebasin, loss = soft("mlp"), WeightDistance(kind)  # type: ignore[arg-type]
    before = loss(rebasin)
    next(rebasin.target.buffers()).add_(1.0)
    assert not torch.equal(loss(rebasin), before)
    torch.testing.assert_close(loss(rebasin), witness(rebasin, kind))
    rebasin.float()
    assert loss(rebasin).dtype == torch.float32
    torch.testing.assert_close(loss(rebasin), witness(rebasin, kind), rtol=1e-5, atol=0)


def test_inner_of_scaled_units_is_l2_at_hard_permutations_and_has_its_gradient() -> None:
    torch.manual_seed(0)
    rebasin = SinkhornRebasin(mlp(), mlp(), inputs("mlp"), rescale=True, noise=0.3).double()
    loss = WeightDistance("inner")
    scales = next(iter(rebasin.log_scales.values()))
    with torch.no_grad():
        scales.add_(torch.randn_like(scales))
    (gradient,) = torch.autograd.grad(loss(rebasin), scales)
    with torch.no_grad():
        step = 1e-6 * torch.randn_like(scales)
        scales.add_(step)
        above = loss(rebasin)
        scales.sub_(2 * step)
        slope = above - loss(rebasin)
    assert float((2 * step * gradient).sum()) == pytest.approx(float(slope), rel=1e-4)
    rebasin.eval()
    torch.testing.assert_close(loss(rebasin), WeightDistance("l2")(rebasin))


def test_gradients_do_not_depend_on_autocast_and_losses_can_be_saved() -> None:
    rebasin = soft("mlp").float()
    loss = WeightDistance("inner")
    expected = gradients(rebasin, loss(rebasin))
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(rebasin, loss(rebasin))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert repr(pickle.loads(pickle.dumps(loss))) == "WeightDistance('inner')"
    assert repr(WeightDistance("inner", fraction=0.25)) == "WeightDistance('inner', fraction=0.25)"


def test_a_fraction_of_another_kind_or_size_is_an_error() -> None:
    with pytest.raises(LossError, match="kind='inner'"):
        WeightDistance("l2", fraction=0.5)
    with pytest.raises(LossError, match="at most 1 but got 0"):
        WeightDistance("inner", fraction=0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("bilinear", [False, True])
def test_the_derivative_along_tangents_can_be_differentiated(bilinear: bool) -> None:
    rebasin = soft("mlp")
    acting = rebasin.acting()
    assert acting is not None
    spec, matrices = acting
    names, places = list(matrices), tuple(matrix.detach() for matrix in matrices.values())
    tangents = tuple(torch.ones_like(matrix).tril() for matrix in places)
    states = rebasin.target_state(), rebasin.reference_state()
    form = ClosedForm(*states, spec, rebasin.spec.compared, torch.float64, bilinear)

    def value(*given: Tensor) -> Tensor:
        return form(dict(zip(names, given, strict=True)), every)

    def along(*given: Tensor) -> Tensor:
        return torch.func.jvp(value, given, tangents)[1]

    def step(size: float) -> tuple[Tensor, ...]:
        moved = (place + size * tangent for place, tangent in zip(places, tangents, strict=True))
        return torch.func.grad(value, argnums=tuple(range(len(places))))(*moved)

    found = torch.func.grad(along, argnums=tuple(range(len(places))))(*places)
    # Gradients are polynomials of the third degree along a line, so that these differences are exact.
    far, near = zip(step(1.0), step(-1.0), strict=True), zip(step(0.5), step(-0.5), strict=True)
    expected = [(8 * (c - d) - (a - b)) / 6 for (a, b), (c, d) in zip(far, near, strict=True)]
    torch.testing.assert_close(list(found), expected, rtol=1e-9, atol=1e-12)


def test_rounding_makes_no_distance_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        units = torch.randn(1, 8, 64, generator=generator) * 100
        side = OneSide.of("a", [units], [units], bilinear=False)
        assert float(side.squared(torch.eye(8) + 1e-6)[0]) >= 0
