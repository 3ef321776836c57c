"""Networks that branch on their data: what no run uses is told, and what other inputs reach is followed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import RebasinWarning
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.symmetry.witness import difference


def by_length(chosen: Tensor) -> Tensor | None:
    """Rows, or None where there are none: a branch on a shape."""
    rows = chosen.nonzero()[:, 0]
    return rows if len(rows) else None


def by_value(chosen: Tensor) -> Tensor | None:
    """The same by a branch on a value."""
    return chosen.nonzero()[:, 0] if chosen.any() else None


class Skipping(nn.Module):
    """Two experts, for rows above and below a threshold; an expert without rows is skipped."""

    def __init__(self, rows_of: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self.body, self.rows_of = nn.Linear(4, 6), rows_of
        self.above, self.below = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, high = self.body(x).tanh(), x[:, 0] > 0
        out = hidden.new_zeros(len(x), 3)
        for expert, chosen in ((self.above, high), (self.below, ~high)):
            rows = self.rows_of(chosen)
            if rows is not None:
                out = out.index_add(0, rows, expert(hidden[rows]))
        return out


@pytest.mark.parametrize("rows_of", [by_length, by_value])
def test_a_branch_that_other_inputs_take_is_followed(rows_of: Callable[[Tensor], Tensor | None]) -> None:
    torch.manual_seed(0)
    model, inputs = Skipping(rows_of), torch.tensor([[0.5, -1.0, 2.0, -1.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = discover_symmetry(model, inputs)
    assert {slot.tensor for slot in spec.slots} >= {"above.weight", "below.weight"}
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(64, 4)) < 1e-5


@pytest.mark.parametrize("rows_of", [by_length, by_value])
def test_a_branch_that_no_run_takes_is_told(rows_of: Callable[[Tensor], Tensor | None]) -> None:
    model, inputs = Skipping(rows_of), torch.tensor([[9.5, 9.0, 9.2, 9.5]])
    with pytest.warns(
        RebasinWarning, match="no run used 'below.weight', 'below.bias': permutations may change"
    ):
        discover_symmetry(model, inputs)


def test_what_is_unused_without_branches_is_not_told() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    model.spare = nn.Linear(3, 3)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        discover_symmetry(model, torch.randn(2, 4))
