"""Wrong claims that hold near the example are caught by trials that do not resemble it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from sinkhorn_rebasin.symmetry.verification.conditions import CONDITIONS, Condition, integer_ranges, shuffled
from tests.symmetry.tracing.test_values_that_were_read import Masks


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def claim(model: nn.Module, size: int, *places: tuple[str, int]) -> PermutationSpec:
    """One group on whole axes of these tensors, whether it is a symmetry or not."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    slots = tuple(Slot("claimed", name, (axis,), Layout(1, size)) for name, axis in places)
    return PermutationSpec((Group("claimed", size),), slots, shapes)


class Bag(nn.Module):
    """Sums of rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(6, 5)), nn.Linear(5, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table.index_select(0, ids.flatten()).view(*ids.shape, -1).sum(1))


@pytest.mark.parametrize(
    "ids", [torch.full((1, 3), 5), torch.zeros(1, 3, dtype=torch.long), torch.arange(6)[None]]
)
def test_other_rows_of_a_table_are_tried(ids: Tensor) -> None:
    with pytest.raises(SymmetryError, match="claimed"):
        verify_symmetry(Bag(), claim(Bag(), 6, ("table", 0)), ids)
    assert verify_symmetry(Bag(), discover_symmetry(Bag(), ids), ids) < 1e-12


class Experts(nn.Module):
    """Rows go to one of four matrices, to one of which hardly any goes."""

    def __init__(self, rare: float = -10.0) -> None:
        super().__init__()
        self.body, self.gate, self.head = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(6, 2)
        self.first, self.second = nn.Parameter(torch.randn(4, 8, 6)), nn.Parameter(torch.randn(4, 6, 8))
        with torch.no_grad():
            self.gate.bias[2] += rare

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        expert = self.gate(hidden).argmax(-1)
        order = expert.argsort()
        parts = hidden[order].split(torch.bincount(expert, minlength=4).tolist())
        matrices = zip(parts, self.first, self.second, strict=True)
        outputs = torch.cat([(part @ first.T).relu() @ second.T for part, first, second in matrices])
        return self.head(outputs[order.argsort()] + hidden)


@pytest.mark.parametrize("rare", [0.0, -10.0])
def test_experts_that_hardly_any_row_goes_to_are_tried(rare: float) -> None:
    model, inputs = Experts(rare), torch.randn(3, 3)
    places = Layout.from_table(96 + torch.arange(6).numpy().reshape(1, 6, 1) * 8 + torch.arange(8).numpy())
    wrong = claim(model, 6)
    wrong = replace(wrong, slots=(Slot("claimed", "second", (0, 1, 2), places),))
    with pytest.raises(SymmetryError, match="claimed"):
        verify_symmetry(model, wrong, inputs)


def test_experts_without_rows_are_not_moved_alone() -> None:
    model = Experts().double()
    spec = discover_symmetry(model, torch.randn(3, 3).double())
    assert not any(len(slot.axes) > 1 for slot in spec.slots)
    assert verify_symmetry(model, spec, torch.randn(50, 3)) < 1e-12


def test_a_mask_that_other_inputs_choose_is_tried() -> None:
    model, inputs = Masks(persistent=False), torch.randn(64, 4)
    wrong = claim(model, 8, ("a.weight", 0), ("a.bias", 0), ("b.weight", 1))
    with pytest.raises(SymmetryError, match="claimed"):
        verify_symmetry(model, wrong, inputs)


class Twice(nn.Module):
    """A norm that is registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
        self.body = nn.Sequential(self.conv, self.norm, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def test_all_names_of_a_buffer_move() -> None:
    model, inputs = Twice(), torch.randn(4, 3, 6, 6)
    spec = discover_symmetry(model, inputs)
    names = {slot.tensor for slot in spec.slots}
    assert {"norm.running_mean", "body.1.running_mean", "norm.running_var", "body.1.running_var"} <= names
    wrong = replace(spec, slots=tuple(slot for slot in spec.slots if slot.tensor != "body.1.running_var"))
    with pytest.raises(
        SymmetryError, match=r"'norm.running_var' and 'body.1.running_var', which are one tensor"
    ):
        verify_symmetry(model, wrong, inputs)


class Grows(nn.Module):
    """Does something else with many samples, or where gradients are on."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 8), nn.Linear(8, 2), how

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x)
        other = len(x) > 8 if self.how == "samples" else torch.is_grad_enabled()
        return self.b(hidden.flip(-1) if other else hidden)


@pytest.mark.parametrize("how", ["samples", "gradients"])
def test_more_samples_and_gradients_are_tried(how: str) -> None:
    model, inputs = Grows(how), torch.randn(6, 4)
    with pytest.raises(SymmetryError, match="'a'"):
        verify_symmetry(model, claim_of_a(model), inputs)


def claim_of_a(model: nn.Module) -> PermutationSpec:
    wrong = claim(model, 8, ("a.weight", 0), ("a.bias", 0))  # as if the head's columns moved not
    return replace(
        wrong,
        groups=(Group("a", 8),),
        slots=tuple(
            Slot("a", n, (axis,), Layout(1, 8))
            for n, axis in (("a.weight", 0), ("a.bias", 0), ("b.weight", 1))
        ),
    )


def test_a_network_that_runs_on_nothing_else_is_verified_on_the_example() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.a, self.b = nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            if ids.shape != (2, 3) or not torch.equal(ids, torch.arange(6).view(2, 3)):
                raise ValueError("not these")
            return self.b(self.a(self.table(ids)).relu())

    model, ids = Picky(), torch.arange(6).view(2, 3)
    assert verify_symmetry(model, discover_symmetry(model, ids), ids) < 1e-12


def test_chaos_is_no_counterexample() -> None:
    class Chaos(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.a(x).tanh()).sigmoid()
            for _ in range(60):
                y = 3.99 * y * (1 - y)
            return y

    model, x = Chaos(), torch.randn(5, 4)
    assert verify_symmetry(model, discover_symmetry(model, x), x) < 1e-9


def test_ranges_are_those_of_the_tables_a_network_looks_into() -> None:
    model = nn.Embedding(50, 3)
    state = {"weight": model.weight, "other": torch.zeros(70, 2)}

    def runs(inputs: Tensor) -> bool:
        return int(inputs.max()) < 50

    assert integer_ranges(torch.tensor([[1, 2]]), state, runs) == {0: 50}
    assert integer_ranges(torch.randn(2, 2), state, runs) == {}


def test_shuffled_weights_have_entries_of_their_tensor() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    spec = discover_symmetry(model, torch.randn(2, 3))
    drawn = shuffled(model.state_dict(), spec, torch.Generator().manual_seed(0))
    for name, tensor in model.state_dict().items():
        assert set(drawn[name].flatten().tolist()) <= set(tensor.flatten().tolist())
    assert not torch.equal(drawn["0.weight"], model[0].weight)


def test_conditions_become_simpler() -> None:
    assert CONDITIONS[0] == Condition()
    assert [*CONDITIONS[1].simpler()][-1] == Condition()
