from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SpecError, SymmetryError
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import Layout, PermutationSpec, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.cases import case

NAMES = ("mlp_batch_norm", "conv2d", "reshape_between_conv_and_linear", "grouped", "resnet_identity", "glu")


def problem(name: str) -> tuple[nn.Module, PermutationSpec, Tensor]:
    torch.manual_seed(0)
    model, inputs = case(name).make(), case(name).make_inputs()
    return model, discover_symmetry(model, inputs), inputs


def with_layout(spec: PermutationSpec, number: int, layout: Layout) -> PermutationSpec:
    slots = list(spec.slots)
    slots[number] = replace(slots[number], layout=layout)
    return replace(spec, slots=tuple(slots))


@pytest.mark.parametrize("name", NAMES)
def test_every_missing_slot_is_noticed_and_its_group_named(name: str) -> None:
    model, spec, inputs = problem(name)
    for number, slot in enumerate(spec.slots):
        wrong = replace(spec, slots=(*spec.slots[:number], *spec.slots[number + 1 :]))
        with pytest.raises(SymmetryError, match=f"'{slot.group}'"):
            verify_symmetry(model, wrong, inputs)


@pytest.mark.parametrize("name", ["mlp_batch_norm", "conv2d", "glu"])
def test_every_rolled_layout_is_noticed_and_its_group_named(name: str) -> None:
    model, spec, inputs = problem(name)
    for number, slot in enumerate(spec.slots):
        rolled = Layout.from_table(np.roll(slot.layout.table(), 1, axis=1))
        # Rolled alike everywhere it would be the same symmetry; rolled in one place it is none.
        with pytest.raises(SymmetryError, match=f"'{slot.group}'"):
            verify_symmetry(model, with_layout(spec, number, rolled), inputs)


def test_wrong_running_statistics_alone_are_noticed() -> None:
    model, spec, inputs = problem("mlp_batch_norm")
    statistics = [s for s in spec.slots if s.tensor in spec.buffers]
    assert {slot.tensor for slot in statistics} == {"1.running_mean", "1.running_var"}
    for missing in statistics:
        wrong = replace(spec, slots=tuple(slot for slot in spec.slots if slot != missing))
        with pytest.raises(SymmetryError):
            verify_symmetry(model, wrong, inputs)


def test_only_the_guilty_group_is_named() -> None:
    model, spec, inputs = problem("mlp_relu")
    first, second = "0", "2"
    assert set(spec.names) == {first, second}
    wrong = replace(spec, slots=tuple(s for s in spec.slots if (s.group, s.tensor) != (second, "2.bias")))
    with pytest.raises(SymmetryError) as caught:
        verify_symmetry(model, wrong, inputs)
    assert f"{second!r}" in str(caught.value)
    assert f"{first!r}" not in str(caught.value)
    assert verify_symmetry(model, wrong.without(second), inputs) < 1e-12


def test_a_spec_of_another_network_is_refused() -> None:
    _, spec, _ = problem("mlp_relu")
    with pytest.raises(SpecError, match=r"'0.weight'.*\(5, 3\).*\(7, 3\)"):
        verify_symmetry(nn.Sequential(nn.Linear(3, 7)), spec, torch.randn(2, 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_proves_nothing_is_told(value: float) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    spec = discover_symmetry(model, torch.randn(2, 3))
    with torch.no_grad():
        model[2].bias.fill_(value)
    with pytest.raises(SymmetryError, match=r"returns (NaN|nothing finite).*'2.bias' is not finite"):
        verify_symmetry(model, spec, torch.randn(2, 3))


def test_a_group_of_two_is_swapped_in_the_first_trial() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    spec = discover_symmetry(model, torch.randn(2, 3))
    wrong = replace(spec, slots=spec.slots[:-1])
    for seed in range(8):
        with pytest.raises(SymmetryError, match="'0'"):
            verify_symmetry(
                model, wrong, torch.randn(2, 3), trials=1, generator=torch.Generator().manual_seed(seed)
            )


def test_inputs_that_random_ones_would_break_are_drawn_from_the_example() -> None:
    class Picky(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if bool(((x != 0) & (x != 1)).any()):
                raise ValueError("not binary")
            return super().forward(x)

    model = Picky(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    spec = discover_symmetry(model, inputs)
    assert verify_symmetry(model, spec, inputs) < 1e-12
    with pytest.raises(SymmetryError, match="'0'"):
        verify_symmetry(model, replace(spec, slots=spec.slots[:-1]), inputs)


def test_a_network_that_is_random_in_eval_mode_is_named_as_such() -> None:
    class Noisy(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(())

    model = Noisy(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    spec = discover_symmetry(nn.Sequential(*model), torch.randn(2, 3))
    with pytest.raises(SymmetryError, match="output is random"):
        verify_symmetry(model, spec, torch.randn(2, 3))


def test_the_generator_decides_the_result() -> None:
    model, spec, inputs = problem("conv2d")

    def run(seed: int) -> float:
        return verify_symmetry(model, spec, inputs, generator=torch.Generator().manual_seed(seed))

    assert run(1) == run(1)


def test_nothing_to_permute_is_no_change() -> None:
    model, spec, inputs = problem("cumulative_sum")
    assert not random_permutations(spec)
    assert verify_symmetry(model, spec, inputs) == 0.0


def test_relative_change_by_hand() -> None:
    before = {"a": torch.tensor([1.0, -4.0]), "b": [torch.tensor([2.0, float("inf")])]}
    after = {"a": torch.tensor([1.0, -3.0]), "b": [torch.tensor([2.5, float("inf")])]}
    assert largest_change(before, after) == pytest.approx(0.25)
    assert largest_change(before, before) == 0.0
    assert largest_change(torch.ones(2), torch.tensor([1.0, float("nan")])) == float("inf")
    assert largest_change(torch.empty(0), torch.empty(0)) == 0.0


class NarrowOnly(nn.Module):
    """Uses a kernel that float64 has not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("no such kernel")
        return self.b(self.a(x).relu())


def test_a_network_without_float64_is_checked_in_its_own_type() -> None:
    torch.manual_seed(0)
    model, inputs = NarrowOnly(), torch.randn(4, 3)
    spec = discover_symmetry(model, inputs)
    assert 0 < verify_symmetry(model, spec, inputs, trials=8) < 1e-5
    broken = dataclasses.replace(spec, slots=tuple(slot for slot in spec.slots if slot.tensor != "a.bias"))
    with pytest.raises(SymmetryError, match="'a'"):
        verify_symmetry(model, broken, inputs)
