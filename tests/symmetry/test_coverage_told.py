"""Little that can be permuted is told in time, with what holds the rest, and refused where it is asked for."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, discover_symmetry
from sinkhorn_rebasin.errors import CoverageWarning, SpecError, SymmetryError
from sinkhorn_rebasin.permutations.views.coverage import share_of_what_could_move

X = torch.randn(2, 3)


class Mostly(nn.Module):
    """A small layer that can be permuted, and a large one behind a sort."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(self.b(self.a(x).relu()).sort(-1).values.cumsum(-1))
        return found


class Positions(nn.Module):
    """A stream that meets a table of constants, which holds all of it fast."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mix, self.out = nn.Linear(3, 32), nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x) + torch.linspace(0, 1, 32)
        found: Tensor = self.out((h + self.mix(h)).relu())
        return found


def dense(*widths: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


@pytest.mark.parametrize("model", [Mostly(), Positions()], ids=["sort", "constants"])
def test_little_is_told_where_it_is_asked_for(model: nn.Module) -> None:
    with pytest.warns(CoverageWarning, match=r"only [\d.]+% are: aten\.\w+ at \S+\.py:\d+ holds") as told:
        spec = discover_symmetry(model, X)
    assert told[0].filename == __file__
    assert share_of_what_could_move(spec) < 0.9
    with pytest.raises(SymmetryError, match=r"min_coverage asks for 50\.0%"):
        discover_symmetry(model, X, min_coverage=0.5)


def test_it_names_what_left_no_position_free() -> None:
    with pytest.warns(CoverageWarning, match=r"12\.9% are: aten\.sort at .*holds 4,096 of them"):
        SinkhornRebasin(Mostly(), Mostly(), X)


def test_a_spec_that_is_handed_in_is_refused_but_not_told_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        spec = discover_symmetry(Mostly(), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SinkhornRebasin(Mostly(), Mostly(), X, spec=spec)
        with pytest.raises(SymmetryError, match=r"12\.9%"):
            SinkhornRebasin(Mostly(), Mostly(), X, spec=spec, min_coverage=0.2)


@pytest.mark.parametrize(
    "model",
    [
        dense(3, 2),
        dense(3, 8, 100),
        dense(3, 4, 4),
        nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 3), nn.LayerNorm(3)),
    ],
)
def test_what_inputs_and_outputs_hold_is_no_loss(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = discover_symmetry(model, X, min_coverage=1.0)
    assert share_of_what_could_move(spec) == 1.0


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), 90])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(SpecError, match="min_coverage to be a share"):
        discover_symmetry(dense(3, 4, 2), X, min_coverage=share)
