from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.value_reads import ValueReads
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.cases import case


class ReturnsText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> str:
        self.layer(x)
        return "done"


class NotWatched(ReturnsText):
    """Refuses to run where it is watched closely."""

    def forward(self, x: Tensor) -> Tensor:
        if any(isinstance(mode, ValueReads) for mode in _get_current_function_mode_stack()):
            raise RuntimeError("somebody is watching")
        return self.layer(x)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
            torch.randn(2, 5),
            r"Sequential runs on .*\(2, 5\)",
        ),
        (nn.Linear(3, 4), (torch.randn(2, 3), torch.randn(2)), r"Linear runs on .*TypeError"),
        (nn.Linear(3, 4), {"x": torch.randn(2, 3)}, "TypeError"),
        (nn.ReLU(), torch.randn(2, 3), "parameters"),
        (nn.BatchNorm1d(3, affine=False), torch.randn(2, 3), "parameters"),
        (ReturnsText(), torch.randn(2, 3), "at least one tensor but got str"),
        (NotWatched(), torch.randn(2, 3), "NotWatched runs and cannot be traced"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_cannot_be_traced_is_told_and_left_as_it_was(
    model: nn.Module, inputs: object, message: str, training: bool
) -> None:
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with pytest.raises(ArchitectureError, match=message):
        discover_symmetry(model, inputs)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), random_state)


def test_flags_of_the_backends_are_put_back() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    with pytest.raises(ArchitectureError):
        discover_symmetry(NotWatched(), torch.randn(2, 3))
    discover_symmetry(nn.Linear(3, 4), torch.randn(2, 3))
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == before


def test_names_of_groups_can_name_parameters() -> None:
    for name in ("resnet_option_a", "attention", "tied_layers", "grouped"):
        spec = discover_symmetry(case(name).make(), case(name).make_inputs())
        scores = nn.ParameterDict({group: torch.zeros(1) for group in spec.names})
        assert sorted(scores) == sorted(spec.names)


def test_parents_come_first_and_fit_their_blocks() -> None:
    spec = discover_symmetry(case("grouped_twice").make(), case("grouped_twice").make_inputs())
    nested = [group for group in spec.groups if group.parent]
    assert len(nested) == 3
    for group in nested:
        assert group.blocks == spec[group.parent].units
        assert spec.names.index(group.parent) < spec.names.index(group.name)


def test_tied_tensors_have_the_same_slots() -> None:
    spec = discover_symmetry(case("tied_layers").make(), case("tied_layers").make_inputs())
    first, second = (
        [(s.group, s.axes, s.layout) for s in spec.slots_on(n)] for n in ("2.weight", "4.weight")
    )
    assert first == second
    assert len(first) == 2


def test_a_change_of_the_batch_size_changes_nothing() -> None:
    for name in ("mlp_layer_norm", "conv2d", "heads", "squeeze_and_excitation"):
        model, inputs = case(name).make(), case(name).make_inputs()
        assert discover_symmetry(model, inputs) == discover_symmetry(model, torch.cat([inputs, inputs]))


def test_a_batch_of_one_changes_nothing() -> None:
    for name in ("mlp_layer_norm", "conv2d", "heads", "squeeze_and_excitation", "resnet_option_b"):
        model, inputs = case(name).make(), case(name).make_inputs()
        assert discover_symmetry(model, inputs) == discover_symmetry(model, inputs[:1])


class ChoosesByData(nn.Module):
    """A layer for every sign of the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.chosen = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.chosen[int(x[0, 0] > 0)](h).tanh())


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_what_the_example_does_not_choose_is_met_as_well(sign: float) -> None:
    torch.manual_seed(0)
    model, inputs = ChoosesByData(), torch.randn(4, 3)
    inputs[0, 0] = sign
    spec = discover_symmetry(model, inputs)
    moved = {slot.tensor for slot in spec.slots}
    assert {"chosen.0.weight", "chosen.1.weight"} <= moved
    inputs[0, 0] = -sign
    assert verify_symmetry(model, spec, inputs, trials=6) < 1e-12


class Remembers(nn.Module):
    """Keeps what it made of a table of biases, until its mode is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.table = nn.Linear(3, 5), nn.Linear(5, 2), nn.Parameter(torch.randn(5, 2))
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Remembers:
        self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if not self.kept:
            self.kept = {"biases": self.table.sum(1)}
        return self.last((self.first(x) + self.kept["biases"]).tanh())


def test_what_a_network_remembers_until_its_mode_changes_is_followed() -> None:
    torch.manual_seed(0)
    model = Remembers().eval()
    spec = discover_symmetry(model, torch.randn(4, 3))
    (units, _) = sorted(spec.groups, key=lambda group: -group.size)
    assert ("table", (0,)) in {(slot.tensor, slot.axes) for slot in spec.slots_of(units.name)}
    assert verify_symmetry(model, spec, torch.randn(4, 3)) < 1e-12
    assert not model.kept


def test_a_layer_that_nothing_goes_through_is_frozen_and_named() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.few, self.many, self.last = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, routed: int = 0) -> Tensor:
            return self.last(torch.cat([self.few(x[:routed]), self.many(x[routed:])]).relu())

    spec = discover_symmetry(Routed(), torch.randn(8, 5))
    assert not spec.slots_on("few.weight")
    assert {"nothing went through it for the inputs tried"} == {
        axis.reason for axis in spec.frozen if axis.tensor == "few.bias"
    }
    reached = discover_symmetry(Routed(), (torch.randn(8, 5), 4))
    assert {slot.tensor for slot in reached.slots_of("few")} >= {"few.weight", "many.weight", "last.weight"}
