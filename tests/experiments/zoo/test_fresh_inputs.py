"""The check on fresh inputs: it builds networks anew, and sees what a wrong symmetry or a write does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.fresh_inputs import change_on_fresh_inputs
from experiments.zoo.measurement import measure
from sinkhorn_rebasin import discover_symmetry


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def example() -> torch.Tensor:
    return torch.randn(4, 3)


def fresh() -> torch.Tensor:
    return torch.randn(7, 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_true_symmetry_changes_nothing(seed: int) -> None:
    model = mlp()
    spec = discover_symmetry(model, example())
    change, precision = change_on_fresh_inputs(model, mlp, spec, fresh, seed)
    assert change < 1e-12
    assert precision == torch.float64


def test_a_spec_without_a_slot_is_seen() -> None:
    model = mlp()
    spec = discover_symmetry(model, example())
    wrong = replace(spec, slots=tuple(slot for slot in spec.slots if slot.tensor != "0.bias"))
    assert change_on_fresh_inputs(model, mlp, wrong, fresh, 0)[0] > 1e-3


class Rounding(nn.Module):
    def __init__(self, cast: bool) -> None:
        super().__init__()
        self.first, self.second, self.cast = nn.Linear(3, 8), nn.Linear(8, 2), cast

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu().float()
        if not self.cast:
            return self.second(hidden)  # type: ignore[no-any-return]
        return nn.functional.linear(hidden, self.second.weight.float()).to(x.dtype)


@pytest.mark.parametrize("cast", [True, False])
def test_networks_that_round_to_single_precision_are_told(cast: bool) -> None:
    model = Rounding(cast)
    spec = discover_symmetry(model, example())
    change, precision = change_on_fresh_inputs(model, lambda: Rounding(cast), spec, fresh, 0)
    assert change < 1e-5
    assert precision == torch.float32


def test_integers_of_the_state_dict_stay() -> None:
    class Shuffled(nn.Module):
        """Its buffer is part of the architecture."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)
            self.register_buffer("order", torch.randperm(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x).relu()
            out: torch.Tensor = self.second(hidden + hidden[:, self.order])
            return out

    torch.manual_seed(5)
    model = Shuffled()
    spec = discover_symmetry(model, example())
    assert change_on_fresh_inputs(model, Shuffled, spec, fresh, 1)[0] < 1e-12


def test_a_row_has_the_changes_on_fresh_inputs() -> None:
    row = measure(Entry("mlp", mlp, example, fresh=fresh))
    assert row["sound"]
    assert row["change on fresh inputs"] < 1e-12
    assert row["change of another network"] < 1e-12


def test_fresh_inputs_on_which_the_network_does_not_run_are_an_error() -> None:
    row = measure(Entry("mlp", mlp, example, fresh=lambda: torch.randn(4, 5)))
    assert not row["sound"]
    assert "shapes cannot be multiplied" in row["error"]


class Sample:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


class Doubling(nn.Module):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, sample: Sample) -> torch.Tensor:
        sample.x.mul_(2)
        return self.inner(sample.x)  # type: ignore[no-any-return]


def test_inputs_in_objects_are_widened_and_copied() -> None:
    model = Doubling()
    spec = discover_symmetry(model, Sample(example()))
    change, precision = change_on_fresh_inputs(model, Doubling, spec, lambda: Sample(fresh()), 1)
    assert change < 1e-12
    assert precision == torch.float64
