"""Rescalings hold far from where they were looked for, and for weights that few inputs reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.errors import RebasinWarning, SymmetryError
from sinkhorn_rebasin.permutations import PermutationSpec, rescale_state
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials
from tests.rebasin.rescaled_networks import factors, mlp
from tests.symmetry.rescaling.test_discovery import found
from tests.symmetry.witness import difference


class Clamp(nn.Module):
    """Identity between two bounds."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Experts(nn.Module):
    """Every row goes to one of several experts, the one its router prefers."""

    def __init__(self, experts: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.body, self.router = nn.Linear(4, 6), nn.Linear(6, experts)
        self.experts = nn.ModuleList(nn.Linear(6, 3) for _ in range(experts))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.body(x))
        weight, chosen = self.router(hidden).softmax(-1).max(-1)
        out = hidden.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            out = out.index_add(0, rows, expert(hidden[rows]) * weight[rows, None])
        return out


class Domains(nn.Module):
    """A norm of its own for every domain: its scale and bias are tensors of one axis."""

    def __init__(self, domains: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        normed = [self.norms[int(number)](row) for row, number in zip(self.body(x), domain, strict=True)]
        return self.head(torch.stack(normed).relu())


class Auxiliary(nn.Module):
    """A second head that is there in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.extra = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(x).relu()
        return (self.head(hidden), self.extra(hidden)) if self.training else (self.head(hidden),)


@pytest.mark.parametrize(
    "activation", [nn.ReLU6(), nn.Hardtanh(-9, 9), Clamp(-50, 50), Clamp(-1e9, 20), nn.Threshold(-5, -5)]
)
def test_what_is_homogeneous_near_the_example_alone_is_none(activation: nn.Module) -> None:
    torch.manual_seed(0)
    model, inputs = mlp(activation), 0.1 * torch.randn(8, 3)
    rescaling = discover_rescaling(model, discover_symmetry(model, inputs), inputs)
    assert found(rescaling, "positive") == frozenset()


@pytest.mark.parametrize(("high", "is_odd"), [(20, True), (30, False)])
def test_what_is_odd_near_the_example_alone_is_not_odd(high: float, is_odd: bool) -> None:
    torch.manual_seed(0)
    model, inputs = mlp(Clamp(-20, high)), torch.randn(8, 3)
    rescaling = discover_rescaling(model, discover_symmetry(model, inputs), inputs)
    assert bool(found(rescaling, "sign")) == is_odd


@cache
def spec_of_experts(experts: int) -> PermutationSpec:
    """The spec of experts, which neither their weights nor the inputs nor the activation decide."""
    torch.manual_seed(0)
    return discover_symmetry(Experts(experts, nn.ReLU).double(), torch.randn(8, 4).double())


@pytest.mark.filterwarnings("ignore:Expected every weight")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("rows", [1, 2, 4, 16, 64])
def test_experts_that_few_inputs_reach_keep_their_function(rows: int, activation: type[nn.Module]) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model, inputs = Experts(8, activation).double(), torch.randn(rows, 4).double()
        spec = spec_of_experts(8)
        rescaling = discover_rescaling(model, spec, inputs)
        moved = rescale_state(model.state_dict(), spec, rescaling, *factors(spec, rescaling, seed))
        assert difference(model, moved, torch.randn(500, 4).double()) < 1e-12


def test_all_experts_are_scaled_where_all_are_reached() -> None:
    torch.manual_seed(0)
    model, inputs = Experts(4, nn.ReLU).double(), torch.randn(64, 4).double()
    (generator,) = found(discover_rescaling(model, discover_symmetry(model, inputs), inputs), "positive")
    outgoing = {("router.weight", 1, -1), *((f"experts.{n}.weight", 1, -1) for n in range(4))}
    assert generator == {("body.weight", 0, 1), ("body.bias", 0, 1), *outgoing}


def test_a_norm_that_no_example_reaches_is_told() -> None:
    torch.manual_seed(0)
    model, x = Domains(3).double(), torch.randn(8, 4).double()
    inputs = (x, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    spec = discover_symmetry(model, inputs)
    (generator,) = discover_rescaling(model, spec, inputs).generators
    assert {slot.tensor for slot, exponent in generator.exponents if exponent == 1} == {
        f"norms.{n}.{name}" for n in range(3) for name in ("weight", "bias")
    }
    with pytest.warns(RebasinWarning, match=r"'norms.2.weight'.*none of 24 draws"):
        rescaling = discover_rescaling(model, spec, (x, torch.tensor([0, 1] * 4)))
    assert rescaling.generators == ()


def test_a_head_of_training_alone_is_scaled_with_the_others() -> None:
    torch.manual_seed(0)
    model, inputs = Auxiliary().double().eval(), torch.randn(8, 3).double()
    spec = discover_symmetry(model, inputs)
    rescaling = discover_rescaling(model, spec, inputs)
    outgoing = {("head.weight", 1, -1), ("extra.weight", 1, -1)}
    assert found(rescaling, "positive") == {
        frozenset({("body.weight", 0, 1), ("body.bias", 0, 1), *outgoing})
    }
    moved = rescale_state(model.state_dict(), spec, rescaling, *factors(spec, rescaling))
    assert difference(model.train(), moved, inputs) < 1e-12


def test_rescalings_of_another_activation_are_refused() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(8, 3)
    relu, reference, target = mlp(nn.ReLU()), mlp(nn.GELU()), mlp(nn.GELU())
    spec = discover_symmetry(reference, inputs)
    rescaling = discover_rescaling(relu, spec, inputs)
    with pytest.raises(SymmetryError, match=r"0 \(positive\): 0.weight\[0\] \+1.*another network"):
        SinkhornRebasin(reference, target, inputs, spec=spec, rescale=rescaling)
    assert SinkhornRebasin(reference, target, spec=spec, rescale=rescaling).rescaling == rescaling
    assert SinkhornRebasin(relu, relu, inputs, spec=spec, rescale=rescaling).rescaling == rescaling


def test_one_wrong_candidate_among_many_is_found_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def hold(self: Trials, generators: Sequence[object]) -> bool:
        asked.append(len(generators))
        return "wrong" not in generators

    monkeypatch.setattr(Trials, "hold", hold)
    trials = object.__new__(Trials)
    names = [*map(str, range(20)), "wrong", *map(str, range(21, 64))]
    assert trials.verified(names) == [name for name in names if name != "wrong"]  # type: ignore[arg-type, comparison-overlap]
    assert len(asked) == 1 + 2 * 6
    assert trials.verified([]) == []
