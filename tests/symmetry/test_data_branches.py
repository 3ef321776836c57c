"""Networks that branch on their data: what no run uses is told, and what other inputs reach is followed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
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

    def __init__(self, rows_of: Callable[[Tensor], Tensor | None], threshold: float = 0.0) -> None:
        super().__init__()
        self.body, self.rows_of, self.threshold = nn.Linear(4, 6), rows_of, threshold
        self.above, self.below = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, high = self.body(x).tanh(), x[:, 0] > self.threshold
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
    model, inputs = Skipping(rows_of, threshold=-1e6), torch.randn(2, 4)
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


class Gated(nn.Module):
    """Uses all of its parameters on the example, in another order or not at all on others."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.blocks = nn.Linear(4, 6), nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head, self.how = nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        positive = bool(x.mean() > 0)
        if self.how == "skip":
            hidden = self.blocks[0](hidden).tanh() if positive else hidden
        elif self.how == "order":
            for number in (0, 1) if positive else (1, 0):
                hidden = self.blocks[number](hidden).tanh()
        elif self.how == "add":
            block = self.blocks[1](self.blocks[0](hidden).tanh()).tanh()
            hidden = block + hidden if positive else block
        elif self.how == "sum along":
            hidden = hidden if positive else hidden.cumsum(-1)
        elif self.how == "list":
            hidden = torch.cat([hidden[i : i + 1] for i in x[:, 0].argsort().tolist()])
        elif self.how == "array":
            hidden = hidden * float(hidden.numpy(force=True)[:, 0].sum())
        elif self.how == "copied array":
            hidden = hidden + torch.from_numpy(hidden.detach().numpy().copy()).flip(-1)
        return self.head(hidden)


@pytest.mark.parametrize("how", ["skip", "order", "add", "sum along", "list", "array", "copied array"])
@pytest.mark.filterwarnings("ignore:.*but no run used")
def test_ways_that_use_the_same_parameters_are_followed_too(how: str) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model, inputs = Gated(how).double(), torch.rand(5, 4).double()
        spec = discover_symmetry(model, inputs)
        moved = permute_state(model.state_dict(), spec, random_permutations(spec))
        for factor in (1, -1, 5, -5):
            assert difference(model, moved, factor * torch.rand(5, 4).double()) < 1e-12
        if how in ("skip", "order", "list"):
            assert [group.size for group in spec.groups] == [6]
        if how.endswith("array"):
            assert "body" not in spec.names or spec["body"].size < 6


class Relations(nn.Module):
    """One matrix for each kind, of which an input takes one; or all of them one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.kinds = nn.Linear(4, 6), nn.Parameter(torch.randn(5, 6, 3))

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.body(x).tanh() @ self.kinds[int(kind)]


@pytest.mark.parametrize("kind", [0, 2, 4])
@pytest.mark.filterwarnings("ignore:.*more than were followed")
def test_matrices_that_no_input_takes_hold_those_in_place_that_they_meet(kind: int) -> None:
    torch.manual_seed(0)
    model, x = Relations().double(), torch.randn(3, 4).double()
    spec = discover_symmetry(model, (x, torch.tensor(kind)))
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    for other in range(5):
        assert difference(model, moved, (x, torch.tensor(other))) < 1e-12


class ByWidth(nn.Module):
    """Shows as many hidden units as its input says."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        width = int(x.abs().sum() * 7) % 9
        return self.head(F.pad(self.body(x).tanh()[:, :width], (0, 8 - width)))


def test_more_ways_than_can_be_followed_are_told() -> None:
    torch.manual_seed(0)
    with pytest.warns(RebasinWarning) as told:
        spec = discover_symmetry(ByWidth(), torch.randn(2, 4))
    texts = [str(warning.message) for warning in told]
    assert any("ByWidth, which branches" in text and "more than were followed" in text for text in texts)
    *dropped, little = texts[1:]
    assert all("do not on other inputs than the example's: they are frozen" in text for text in dropped)
    assert "only 0.0% are" in little
    assert spec.validity is not None
    assert spec.validity.ways == 5


class Force(nn.Module):
    """The gradient of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.last(self.second(self.first(x).tanh()).tanh()).sum()
            return torch.autograd.grad(energy, x)[0]


def test_gradients_inside_of_a_network_are_followed() -> None:
    torch.manual_seed(0)
    model, x = Force().double(), torch.randn(5, 4).double()
    spec = discover_symmetry(model, x)
    assert sorted(group.size for group in spec.groups) == [6, 8]
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(7, 4).double()) < 1e-12


def test_parameters_that_share_memory_stay_and_say_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 2)
    )
    model[4].weight = nn.Parameter(model[2].weight.t())
    x = torch.randn(5, 4)
    spec, before = discover_symmetry(model, x), model(x)
    reasons = {frozen.reason for frozen in spec.frozen}
    assert any("shares its memory with '4.weight'" in reason for reason in reasons)
    model.load_state_dict(permute_state(model.state_dict(), spec, random_permutations(spec)))
    torch.testing.assert_close(model(x), before)


class Answer:
    """What a network returns, with its hidden units, in an object without a dictionary."""

    __slots__ = ("hidden", "logits")

    def __init__(self, logits: Tensor, hidden: Tensor) -> None:
        self.logits, self.hidden = logits, hidden


class Showing(nn.Module):
    """Returns its hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Answer:
        hidden = self.body(x).tanh()
        return Answer(self.head(hidden), hidden)


def test_hidden_units_that_are_shown_in_slots_stay() -> None:
    assert discover_symmetry(Showing(), torch.randn(5, 4)).groups == ()
