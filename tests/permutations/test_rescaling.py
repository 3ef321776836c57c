"""The action of rescalings on tensors, against loops over positions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    ScaleSymmetry,
    inverse,
    permute_state,
    random_permutations,
    rescale_state,
)
from tests.permutations.specs import FLATTENED, NESTED, SPECS, state_of
from tests.rebasin.rescaled_networks import built, factors

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def made_up(spec: PermutationSpec, seed: int = 0) -> RescalingSpec:
    """Two positive generators and one of signs for every group, with exponents that mean nothing."""
    rng = np.random.default_rng(seed)
    generators = []
    for group in spec.names:
        for kind, choices in (("positive", (-2, -1, 1, 2)), ("positive", (0, 1)), ("sign", (0, 1))):
            drawn = ((slot, int(rng.choice(choices))) for slot in spec.slots_of(group))
            generators.append(ScaleSymmetry(group, kind, tuple((slot, e) for slot, e in drawn if e)))
    return RescalingSpec(tuple(spec.names), tuple(generators))


def by_loops(
    tensor: Tensor, name: str, rescaling: RescalingSpec, logs: dict[str, Tensor], signs: dict[str, Tensor]
) -> Tensor:
    """Every position of every unit multiplied on its own."""
    array = tensor.numpy().copy()
    for kind, factors_of in (("positive", {g: v.exp() for g, v in logs.items()}), ("sign", signs)):
        for group in rescaling.groups:
            for row, generator in enumerate(rescaling.of(group, kind)):
                for slot, exponent in generator.exponents:
                    if slot.tensor != name:
                        continue
                    table = slot.layout.table()
                    values = factors_of[group][row].numpy().reshape(table.shape[:2])
                    front = np.moveaxis(array, slot.axes, range(len(slot.axes)))
                    flat = front.reshape(-1, *front.shape[len(slot.axes) :]).copy()
                    for block, unit, k in itertools.product(*map(range, table.shape)):
                        flat[table[block, unit, k]] *= values[block, unit] ** exponent
                    array = np.moveaxis(flat.reshape(front.shape), range(len(slot.axes)), slot.axes)
    return torch.from_numpy(array)


@every_spec
@pytest.mark.parametrize("seed", range(3))
def test_action_is_that_of_loops(spec: PermutationSpec, seed: int) -> None:
    state, rescaling = state_of(spec), made_up(spec, seed)
    logs, signs = factors(spec, rescaling, seed)
    moved = rescale_state(state, spec, rescaling, logs, signs)
    for name, tensor in state.items():
        expected = by_loops(tensor, name, rescaling, logs, signs)
        torch.testing.assert_close(moved[name], expected, rtol=1e-12, atol=1e-12)


@every_spec
def test_scales_of_one_change_nothing_and_inverse_scales_undo(spec: PermutationSpec) -> None:
    state, rescaling = state_of(spec), made_up(spec)
    logs, signs = factors(spec, rescaling)
    ones = rescale_state(state, spec, rescaling, {name: value * 0 for name, value in logs.items()})
    assert all(torch.equal(ones[name], state[name]) for name in state)
    there = rescale_state(state, spec, rescaling, logs, signs)
    back = rescale_state(there, spec, rescaling, {name: -value for name, value in logs.items()}, signs)
    for name in state:
        torch.testing.assert_close(back[name], state[name], rtol=1e-12, atol=1e-12)


def test_rescaling_then_permuting_is_permuting_then_rescaling_in_the_new_order() -> None:
    state, rescaling = state_of(FLATTENED), made_up(FLATTENED)
    logs, _ = factors(FLATTENED, rescaling)
    drawn = {"a": torch.tensor([2, 0, 1])}
    assert inverse(FLATTENED, drawn)["a"].tolist() == [1, 2, 0]
    first = permute_state(rescale_state(state, FLATTENED, rescaling, logs), FLATTENED, drawn)
    moved = {"a": logs["a"][:, drawn["a"]]}
    second = rescale_state(permute_state(state, FLATTENED, drawn), FLATTENED, rescaling, moved)
    for name in state:
        torch.testing.assert_close(first[name], second[name], rtol=1e-12, atol=1e-12)


@every_spec
def test_gradients_are_those_of_finite_differences(spec: PermutationSpec) -> None:
    state, rescaling = state_of(spec), made_up(spec)
    logs, signs = factors(spec, rescaling)
    names = sorted(logs)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, values, strict=True))
        return tuple(rescale_state(state, spec, rescaling, given, signs).values())

    assert torch.autograd.gradcheck(run, [logs[name].requires_grad_() for name in names])


def test_tied_names_are_scaled_alike_and_nothing_passed_in_changes() -> None:
    model, _, spec, rescaling = built("tied_relu")
    state = model.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    moved = rescale_state(state, spec, rescaling, factors(spec, rescaling)[0])
    assert torch.equal(moved["second.weight"], moved["third.weight"])
    assert not torch.equal(moved["second.weight"], kept["second.weight"])
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_what_does_not_fit_is_told() -> None:
    state, rescaling = state_of(NESTED), made_up(NESTED)
    with pytest.raises(SpecError, match=r"'inner' in shape \(2, 2, 3\).*got \(2, 6\)"):
        rescale_state(state, NESTED, rescaling, {"inner": torch.zeros(2, 6)})
    with pytest.raises(SpecError, match=r"positive generators.*'other'"):
        rescale_state(state, NESTED, rescaling, {"other": torch.zeros(2, 6)})
    with pytest.raises(SpecError, match="signs from -1 to 1 for group 'heads'"):
        rescale_state(state, NESTED, rescaling, None, {"heads": torch.tensor([[1.0, 1.5]])})
    with pytest.raises(SpecError, match="one of the groups"):
        rescaling.of("nowhere")
    with pytest.raises(SpecError, match="another network"):
        rescale_state({}, NESTED, rescaling)
    assert set(random_permutations(NESTED)) == set(rescaling.groups)
