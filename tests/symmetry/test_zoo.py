from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.cases import CASES, Case, found_slots, randomise
from tests.symmetry.witness import difference, in_double_precision

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@every_case
def test_random_permutations_leave_the_output_unchanged(case: Case) -> None:
    model = randomise(case.make())
    spec = discover_symmetry(model, case.make_inputs())
    wide = copy.deepcopy(model).double().eval()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        state = permute_state(wide.state_dict(), spec, random_permutations(spec, generator=generator))
        assert difference(wide, state, in_double_precision(case.make_inputs())) < 1e-11
    assert verify_symmetry(model, spec, case.make_inputs()) < 1e-10


@every_case
def test_groups_are_those_a_human_would_write(case: Case) -> None:
    spec = discover_symmetry(case.make(), case.make_inputs())
    if case.groups is not None:
        assert Counter((group.size, group.blocks) for group in spec.groups) == Counter(case.groups)
    if case.slots is not None:
        assert found_slots(spec) == set(case.slots)
    if case.frozen is not None:
        assert any(case.frozen in item.reason for item in spec.frozen), spec


@every_case
def test_every_axis_is_either_moved_or_named_as_frozen(case: Case) -> None:
    model = case.make()
    spec = discover_symmetry(model, case.make_inputs())
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
    model = case.make()
    fresh = discover_symmetry(model, case.make_inputs())
    assert discover_symmetry(randomise(model), case.make_inputs()) == fresh


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_are_untouched(case: Case, training: bool) -> None:
    model = randomise(case.make()).train(training)
    inputs = case.make_inputs()
    next(iter(model.parameters())).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    random_state = torch.get_rng_state()
    spec = discover_symmetry(model, inputs)
    verify_symmetry(model, spec, inputs)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_one_example_is_enough_for_batch_norm() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    assert discover_symmetry(model, torch.randn(1, 3)) == discover_symmetry(model, torch.randn(4, 3))
