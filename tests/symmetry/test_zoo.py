from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.cases import CASES, Case, found_slots, randomise, spec_of
from tests.symmetry.witness import difference, in_double_precision

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@dataclass(frozen=True)
class Examined:
    """A network with values drawn anew, what is found in it and told of it, and its looks before and after."""

    model: nn.Module
    spec: PermutationSpec
    change: float
    before: dict[str, Any]
    after: dict[str, Any]


def looks(model: nn.Module) -> dict[str, Any]:
    """All that a caller sees of a network, and the random state."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "random": torch.get_rng_state(),
    }


@cache
def examined(case: Case, training: bool) -> Examined:
    """Discover and verify the symmetries of a case once in each mode; the tests look at what came of it."""
    torch.manual_seed(0)
    model, inputs = randomise(case.make()).train(training), case.make_inputs()
    next(iter(model.parameters())).requires_grad_(False)
    before = looks(model)
    spec = discover_symmetry(model, inputs)
    change = verify_symmetry(model, spec, inputs)
    return Examined(model, spec, change, before, looks(model))


@every_case
def test_random_permutations_leave_the_output_unchanged(case: Case) -> None:
    model, spec = examined(case, True).model, examined(case, True).spec
    wide = copy.deepcopy(model).double().eval()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        state = permute_state(wide.state_dict(), spec, random_permutations(spec, generator=generator))
        assert difference(wide, state, in_double_precision(case.make_inputs())) < 1e-11
    assert max(examined(case, training).change for training in (True, False)) < 1e-10


@every_case
def test_groups_are_those_a_human_would_write(case: Case) -> None:
    spec = spec_of(case)
    if case.groups is not None:
        assert Counter((group.size, group.blocks) for group in spec.groups) == Counter(case.groups)
    if case.slots is not None:
        assert found_slots(spec) == set(case.slots)
    if case.frozen is not None:
        assert any(case.frozen in item.reason for item in spec.frozen), spec


@every_case
def test_every_axis_is_either_moved_or_named_as_frozen(case: Case) -> None:
    model, spec = case.make(), spec_of(case)
    moved = {(slot.tensor, axis) for slot in spec.slots for axis in slot.axes}
    frozen = {(item.tensor, item.axis) for item in spec.frozen}
    axes = {
        (name, axis)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        for axis, length in enumerate(parameter.shape)
        if length > 1
    }
    assert axes <= moved | frozen
    assert not moved & frozen


@every_case
def test_values_of_weights_do_not_matter(case: Case) -> None:
    assert examined(case, True).spec == examined(case, False).spec == spec_of(case)


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_are_untouched(case: Case, training: bool) -> None:
    before, after = examined(case, training).before, examined(case, training).after
    assert torch.equal(after["random"], before["random"])
    assert after["modes"] == before["modes"]
    assert after["modes"][0] == training
    assert after["flags"] == before["flags"]
    assert all(gradient is None for gradient in after["gradients"])
    assert list(after["state"]) == list(before["state"])
    assert all(torch.equal(after["state"][name], before["state"][name]) for name in before["state"])


def test_one_example_is_enough_for_batch_norm() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    assert discover_symmetry(model, torch.randn(1, 3)) == discover_symmetry(model, torch.randn(4, 3))
