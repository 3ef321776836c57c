from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    PermutationSpec,
    Slot,
    identity_permutations,
    permutation_matrix,
    permute_state,
    permute_tensor,
    random_permutations,
)
from sinkhorn_rebasin.permutations.action import units_first
from tests.permutations.specs import FLATTENED, NESTED, PART, SPECS, WHOLE, matrices_of, state_of

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def drawn(spec: PermutationSpec, seed: int = 0) -> dict[str, Tensor]:
    return random_permutations(spec, generator=torch.Generator().manual_seed(seed))


def by_loops(tensor: Tensor, spec: PermutationSpec, name: str, matrices: dict[str, Tensor]) -> Tensor:
    """Every slot's explicit matrix over the flat axis, built position by position from the table."""
    array = tensor.numpy().copy()
    for slot in sorted(spec.slots_on(name), key=lambda slot: -spec.names.index(slot.group)):
        group, table = spec[slot.group], slot.layout.table()
        length = int(np.prod([array.shape[axis] for axis in slot.axes]))
        full = np.eye(length)
        mixing = matrices[slot.group].numpy().reshape(group.blocks, group.size, group.size)
        for block, i, j, k in itertools.product(
            range(group.blocks), range(group.size), range(group.size), range(slot.layout.width)
        ):
            full[table[block, i, k], table[block, j, k]] = mixing[block, i, j]
        front = np.moveaxis(array, slot.axes, range(len(slot.axes)))
        mixed = (full @ front.reshape(length, -1)).reshape(front.shape)
        array = np.moveaxis(mixed, range(len(slot.axes)), slot.axes)
    return torch.from_numpy(array)


@every_spec
def test_soft_action_is_that_of_explicit_matrices(spec: PermutationSpec) -> None:
    state, matrices = state_of(spec), matrices_of(spec)
    moved = permute_state(state, spec, matrices)
    for name, tensor in state.items():
        assert torch.allclose(moved[name], by_loops(tensor, spec, name, matrices), rtol=1e-12, atol=1e-12)


@every_spec
@pytest.mark.parametrize("seed", range(4))
def test_hard_action_equals_soft_action_by_permutation_matrices(spec: PermutationSpec, seed: int) -> None:
    state, indices = state_of(spec), drawn(spec, seed)
    matrices = {name: permutation_matrix(value, torch.float64) for name, value in indices.items()}
    hard, soft = permute_state(state, spec, indices), permute_state(state, spec, matrices)
    for name in state:
        assert torch.equal(hard[name], soft[name])
        assert torch.equal(hard[name], by_loops(state[name], spec, name, matrices))


@every_spec
def test_identities_change_nothing(spec: PermutationSpec) -> None:
    state = state_of(spec)
    moved = permute_state(state, spec, identity_permutations(spec))
    assert all(torch.equal(moved[name], state[name]) for name in state)


def test_matrix_products_by_hand() -> None:
    state, p = state_of(WHOLE), matrices_of(WHOLE)["a"]
    moved = permute_state(state, WHOLE, {"a": p})
    assert torch.allclose(moved["in"], p @ state["in"])
    assert torch.allclose(moved["out"], state["out"] @ p.T)
    assert torch.allclose(moved["kernel"], torch.einsum("ij,ojk->oik", p, state["kernel"]))
    assert moved["free"] is state["free"]
    flat = state_of(FLATTENED)
    q = matrices_of(FLATTENED)["a"]
    expected = torch.einsum("ij,ojk->oik", q, flat["w"].view(2, 3, 4)).reshape(2, 12)
    assert torch.allclose(permute_state(flat, FLATTENED, {"a": q})["w"], expected)


def test_positions_outside_a_slot_stay() -> None:
    state = state_of(PART)
    for permutations in (drawn(PART), matrices_of(PART)):
        moved = permute_state(state, PART, permutations)
        assert torch.equal(moved["w"][[0, 4, 7]], state["w"][[0, 4, 7]])
        assert torch.equal(moved["gates"][[3, 7]], state["gates"][[3, 7]])


def test_nested_groups_act_before_the_group_they_live_in() -> None:
    state = state_of(NESTED)
    permutations = {
        "heads": torch.tensor([1, 0]),
        "inner": torch.tensor([[1, 2, 0], [0, 1, 2]]),
        "cell": torch.tensor([[1, 0]] + [[0, 1]] * 5),
    }
    moved = permute_state(state, NESTED, permutations)["w"].view(2, 3, 2, 2)
    old = state["w"].view(2, 3, 2, 2)
    assert torch.equal(moved[0], old[1])
    assert torch.equal(moved[1, 2], old[0, 0].flip(0))
    assert torch.equal(moved[1, :2], old[0, 1:])


@every_spec
def test_action_is_linear_in_the_tensors(spec: PermutationSpec) -> None:
    one, matrices = state_of(spec), matrices_of(spec)
    two = {name: tensor.flip(0) for name, tensor in one.items()}
    both = permute_state({n: 2 * one[n] - 3 * two[n] for n in one}, spec, matrices)
    first, second = permute_state(one, spec, matrices), permute_state(two, spec, matrices)
    for name in one:
        inside = both[name] - (2 * first[name] - 3 * second[name])
        assert inside.abs().max() < 1e-12


@pytest.mark.parametrize("name", ["whole", "flattened", "listed", "several_axes"])
def test_action_is_affine_in_the_matrices_of_one_slot(name: str) -> None:
    spec = SPECS[name]
    state, p, q = state_of(spec), matrices_of(spec, 1), matrices_of(spec, 2)
    mixed = permute_state(state, spec, {n: 0.3 * p[n] + 0.7 * q[n] for n in p})
    first, second = permute_state(state, spec, p), permute_state(state, spec, q)
    for key in state:
        assert torch.allclose(mixed[key], 0.3 * first[key] + 0.7 * second[key], rtol=1e-12, atol=1e-12)


@every_spec
def test_gradient_of_the_soft_action(spec: PermutationSpec) -> None:
    state, matrices = state_of(spec), matrices_of(spec)
    names, groups = list(state), spec.names
    leaves = [*state.values(), *(matrices[name] for name in groups)]
    for leaf in leaves:
        leaf.requires_grad_(True)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        moved = permute_state(
            dict(zip(names, tensors[: len(names)], strict=True)),
            spec,
            dict(zip(groups, tensors[len(names) :], strict=True)),
        )
        return tuple(moved[name] for name in spec.shapes if spec.slots_on(name))

    assert torch.autograd.gradcheck(run, leaves)


@every_spec
def test_hard_action_passes_gradients_to_the_weights(spec: PermutationSpec) -> None:
    state = {name: tensor.requires_grad_(True) for name, tensor in state_of(spec).items()}
    moved = permute_state(state, spec, drawn(spec))
    sum((tensor**2).sum() for tensor in moved.values()).backward()
    assert all(torch.allclose(tensor.grad, 2 * tensor.detach()) for tensor in state.values())


@every_spec
def test_nothing_passed_in_is_changed(spec: PermutationSpec) -> None:
    state = state_of(spec)
    for permutations in (drawn(spec), matrices_of(spec)):
        copies = [{name: value.clone() for name, value in given.items()} for given in (state, permutations)]
        permute_state(state, spec, permutations)
        for given, copied in zip((state, permutations), copies, strict=True):
            assert all(torch.equal(given[name], copied[name]) for name in given)


def test_mixed_hard_and_soft_and_types() -> None:
    state = state_of(PART, torch.float32)
    moved = permute_state(state, PART, {"a": drawn(PART)["a"], "b": torch.eye(2, dtype=torch.float64)})
    assert torch.equal(
        moved["w"].float(), permute_state(state, PART, {**drawn(PART), "b": torch.arange(2)})["w"]
    )
    integers = {name: (100 * tensor).long() for name, tensor in state.items()}
    assert permute_state(integers, PART, drawn(PART))["w"].dtype == torch.long


def test_tensors_without_slots_pass_through() -> None:
    tensor = torch.randn(3)
    assert permute_tensor(tensor, (), {}) is tensor
    state = {**state_of(WHOLE), "another": tensor}
    assert permute_state(state, WHOLE, drawn(WHOLE))["another"] is tensor


def test_states_of_other_networks_are_refused() -> None:
    state, permutations = state_of(WHOLE), drawn(WHOLE)
    with pytest.raises(SpecError, match="'out', which this spec permutes, but it is missing"):
        permute_state({n: t for n, t in state.items() if n != "out"}, WHOLE, permutations)
    with pytest.raises(SpecError, match=r"'in' of shape \(4, 3\) but got \(4, 2\)"):
        permute_state({**state, "in": torch.zeros(4, 2)}, WHOLE, permutations)


@every_spec
def test_moved_tensors_are_contiguous(spec: PermutationSpec) -> None:
    state = state_of(spec)
    for permutations in (drawn(spec), matrices_of(spec)):
        moved = permute_state(state, spec, permutations)
        assert all(tensor.is_contiguous() for tensor in moved.values())


def test_sparse_gradients_reach_the_matrices_dense() -> None:
    table, matrix = torch.randn(7, 4), torch.randn(4, 4)
    spec = PermutationSpec((Group("a", 4),), (Slot("a", "table", (1,), Layout(1, 4)),), {"table": (7, 4)})
    gradients = []
    for sparse in (False, True):
        p = matrix.clone().requires_grad_()
        moved = permute_state({"table": table}, spec, {"a": p})["table"]
        torch.nn.functional.embedding(torch.tensor([1, 1, 5]), moved, sparse=sparse).square().sum().backward()
        gradients.append(p.grad)
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("layout", [Layout(1, 12), Layout(3, 4), Layout(2, 3, 2), Layout(1, 4)])
@pytest.mark.parametrize("axes", [(1,), (0, 1)])
def test_units_come_first_all_of_them_or_those_picked(layout: Layout, axes: tuple[int, ...]) -> None:
    tensor = torch.randn(5, 12, 3)
    slot, table = Slot("a", "w", axes, layout), layout.table()
    rows = tensor.flatten(0, 1) if len(axes) == 2 else tensor.transpose(0, 1)
    found, picked = units_first(tensor, slot), units_first(tensor, slot, torch.tensor([2, 0]))
    for block, unit in itertools.product(range(len(table)), range(table.shape[1])):
        expected = torch.cat([rows[place].flatten() for place in table[block, unit]])
        assert torch.equal(found[block, unit], expected)
    assert torch.equal(picked, found[:, [2, 0]])
