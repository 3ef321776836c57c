"""The rescalings found are those a human would write down, and leave the function as it is."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, ScaleSymmetry, rescale_state
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.integer_kernel import integer_kernel
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import scalable_slots, sensitivities
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials
from tests.cases import case
from tests.rebasin.rescaled_networks import NETWORKS, Exponents, built, factors
from tests.symmetry.witness import difference

every_network = pytest.mark.parametrize("name", NETWORKS)


def found(rescaling: RescalingSpec, kind: str) -> frozenset[Exponents]:
    return frozenset(
        frozenset((slot.tensor, slot.axes[0], exponent) for slot, exponent in one.exponents)
        for one in rescaling.generators
        if one.kind == kind
    )


@every_network
def test_exponents_are_those_a_human_writes(name: str) -> None:
    _, _, _, rescaling = built(name)
    assert found(rescaling, "positive") == NETWORKS[name].positive
    assert found(rescaling, "sign") == NETWORKS[name].sign


@every_network
def test_finite_scales_and_signs_leave_the_output_unchanged(name: str) -> None:
    model, inputs, spec, rescaling = built(name)
    for seed in range(3):
        logs, signs = factors(spec, rescaling, seed)
        moved = rescale_state(model.state_dict(), spec, rescaling, logs, signs)
        assert difference(model, moved, inputs) < 1e-12
        if rescaling.generators:
            assert any(not torch.equal(moved[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("relu", "positively homogeneous"),
        ("leaky_relu", "positively homogeneous"),
        ("linear", "positively homogeneous"),
        ("tanh", "odd"),
        ("gelu", "neither"),
        ("sigmoid", "neither"),
    ],
)
def test_kinds_of_groups_are_those_of_their_activations(name: str, kind: str) -> None:
    _, _, spec, rescaling = built(name)
    assert {rescaling.kind_of(group) for group in spec.names} == {kind}


@pytest.mark.parametrize(
    "name",
    [
        "resnet_identity",
        "grouped",
        "transformer_encoder_layer",
        "lstm_with_projection",
        "scaled_through_a_view",
    ],
)
def test_networks_of_the_zoo_keep_their_function(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = case(name).make().eval().double(), case(name).make_inputs().double()
    spec = discover_symmetry(model, inputs)
    rescaling = discover_rescaling(model, spec, inputs, signs=False)
    assert rescaling.generators
    moved = rescale_state(model.state_dict(), spec, rescaling, factors(spec, rescaling)[0])
    assert difference(model, moved, inputs) < 1e-11


def test_rescaled_batch_norm_is_the_same_function_on_batch_statistics() -> None:
    model, inputs, spec, rescaling = built("batch_norm")
    moved = rescale_state(model.state_dict(), spec, rescaling, *factors(spec, rescaling))
    assert difference(model.train(), moved, inputs) < 1e-12


def test_inner_units_of_heads_are_scaled_one_by_one_and_heads_not_again() -> None:
    _, _, spec, rescaling = built("packed_attention")
    nested = {group.name for group in spec.groups if group.parent}
    assert {one.group for one in rescaling.generators if one.kind == "positive"} == nested
    assert set(rescaling.shapes(spec).values()) == {(1, 2, 4)}
    offsets = {
        (slot.tensor, slot.layout.offset): exponent
        for one in rescaling.generators
        for slot, exponent in one.exponents
        if one.kind == "positive" and slot.tensor == "attention.in_proj_weight"
    }
    assert offsets == {
        ("attention.in_proj_weight", 0): 1,
        ("attention.in_proj_weight", 8): -1,
        ("attention.in_proj_weight", 16): 1,
    }


def test_equations_are_those_of_finite_differences() -> None:
    model, inputs, spec, _ = built("attention")
    slots = {name: scalable_slots(spec, name) for name in spec.names}
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def objective(weights: dict[str, Tensor]) -> float:
        # The draws of sensitivities(), repeated: normal inputs, then the weights of the output.
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
        x = noise * inputs.std(correction=0) + inputs.mean()
        with torch.no_grad():
            before, after = (torch.func.functional_call(model, given, x) for given in (state, weights))
        weighting = torch.randn(before.shape, generator=generator, dtype=torch.float64)
        return float((after / before.abs().max() * weighting).sum())

    matrices = sensitivities(model, state, slots, inputs, torch.Generator().manual_seed(5))
    step = 1e-6
    for group, parts in slots.items():
        for column, slot in enumerate(parts):
            for unit in range(spec[group].size):
                alone = RescalingSpec((group,), (ScaleSymmetry(group, "positive", ((slot, 1),)),))
                logs = torch.zeros(1, spec[group].size, dtype=torch.float64)
                logs[0, unit] = step
                up = objective(rescale_state(state, spec, alone, {group: logs}))
                down = objective(rescale_state(state, spec, alone, {group: -logs}))
                expected = (up - down) / (2 * step)
                assert math.isclose(matrices[group][unit, column], expected, rel_tol=1e-5, abs_tol=1e-8)


@pytest.mark.parametrize("name", ["relu", "gelu", "batch_norm", "attention"])
def test_wrong_generators_are_refused(name: str) -> None:
    model, inputs, spec, rescaling = built(name)
    search = Trials(model, spec, inputs, 1e-9, torch.Generator().manual_seed(0))
    right = [one for one in rescaling.generators if one.kind == "positive"]
    wrong = [
        ScaleSymmetry(group, "positive", tuple((slot, 1) for slot in spec.slots_of(group)))
        for group in spec.names
    ]
    wrong += [replace(one, kind="sign", exponents=one.exponents[:1]) for one in right]
    wrong += [replace(one, exponents=one.exponents[:-1]) for one in right]
    assert search.verified([*right, *wrong]) == right


def test_statistics_of_batch_norm_with_its_epsilon_are_no_rescaling() -> None:
    model, inputs, spec, _ = built("batch_norm")
    by_name = {slot.tensor: slot for slot in spec.slots}
    exponents = {"0.weight": 1, "0.bias": 1, "1.running_mean": 1, "1.running_var": 2}
    generator = ScaleSymmetry(
        spec.names[0], "positive", tuple((by_name[name], e) for name, e in exponents.items())
    )
    assert Trials(model, spec, inputs, 1e-9, torch.Generator().manual_seed(0)).verified([generator]) == []
    model[1].eps = 0.0
    assert Trials(model, spec, inputs, 1e-9, torch.Generator().manual_seed(0)).verified([generator]) == [
        generator
    ]


def test_absolute_value_lets_incoming_weights_change_their_sign() -> None:
    class Absolute(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs()

    model = nn.Sequential(nn.Linear(3, 5), Absolute(), nn.Linear(5, 2))
    spec = discover_symmetry(model, torch.randn(4, 3))
    rescaling = discover_rescaling(model, spec, torch.randn(4, 3))
    assert found(rescaling, "sign") == {frozenset({("0.weight", 0, 1), ("0.bias", 0, 1)})}
    assert len(found(rescaling, "positive")) == 1


def test_exponents_of_two_are_found() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu().square()

    model = nn.Sequential(nn.Linear(3, 5), Squared(), nn.Linear(5, 2))
    spec = discover_symmetry(model, torch.randn(4, 3))
    rescaling = discover_rescaling(model, spec, torch.randn(4, 3))
    assert found(rescaling, "positive") == {
        frozenset({("0.weight", 0, 1), ("0.bias", 0, 1), ("2.weight", 1, -2)})
    }


def test_integer_kernels_are_those_planted() -> None:
    rng = np.random.default_rng(0)
    planted = np.array([[1, 0, 1, -1, 0], [0, 1, 0, 2, -1]])
    complement = np.linalg.svd(planted)[2][2:]
    matrix = rng.normal(size=(12, 3)) @ complement
    assert [vector.tolist() for vector in integer_kernel(matrix)] == planted.tolist()
    assert integer_kernel(rng.normal(size=(12, 4))) == []
    assert integer_kernel(rng.normal(size=(12, 1)) @ np.array([[1.0, math.pi]])) == []


def test_nothing_passed_in_is_changed() -> None:
    model, inputs, spec, _ = built("batch_norm")
    model.train()
    next(model.parameters()).requires_grad_(False)
    before, given = copy.deepcopy(model.state_dict()), inputs.clone()
    random_state = torch.get_rng_state()
    discover_rescaling(model, spec, inputs)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(inputs, given)
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not next(model.parameters()).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_calls_agree() -> None:
    model, inputs, spec, rescaling = built("attention")
    assert discover_rescaling(model, spec, inputs) == discover_rescaling(model, spec, inputs) == rescaling


def test_a_spec_of_another_network_and_inputs_that_do_not_fit_are_told() -> None:
    model, _, spec, _ = built("relu")
    with pytest.raises(SpecError, match="discovered on another network"):
        discover_rescaling(nn.Linear(3, 2), spec, torch.randn(2, 3))
    with pytest.raises(ArchitectureError, match="runs on"):
        discover_rescaling(model, spec, torch.randn(2, 7))


def test_a_network_without_groups_has_no_rescalings() -> None:
    spec = discover_symmetry(nn.Linear(3, 2), torch.randn(2, 3))
    assert discover_rescaling(nn.Linear(3, 2), spec, torch.randn(2, 3)) == RescalingSpec(())
    assert isinstance(spec, PermutationSpec)
