from __future__ import annotations

from itertools import permutations as orders

import pytest
import torch
from torch import nn

from experiments.data import load_digits
from experiments.models import build_model
from experiments.models.training import train_endpoint
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.weights.order_invariants import in_steps, sorted_along, up_to_order_of
from sinkhorn_rebasin.matching.weights.similarity import unit_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import (
    Layout,
    Slot,
    identity_permutations,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case, randomise
from tests.matcher_contract import equal
from tests.planted import planted_case


@pytest.mark.parametrize("name", ["mlp_relu", "conv2d", "grouped", "multihead_attention", "lstm"])
def test_what_is_seen_of_an_unknown_group_does_not_depend_on_its_order(name: str) -> None:
    torch.manual_seed(0)
    model = randomise(case(name).make())
    spec = discover_symmetry(model, case(name).make_inputs())
    state, identity = tensors_of(model), identity_permutations(spec)
    shuffled = permute_state(state, spec, random_permutations(spec))
    for slot in spec.slots:
        top = spec[slot.group].parent or slot.group
        family = {top, *(group.name for group in spec.groups if group.parent == top)}
        others = tuple(one for one in spec.slots_on(slot.tensor) if one.group not in family)
        moved = {
            **identity,
            **{one: random_permutations(spec)[one] for one in spec.names if one not in family},
        }
        tensor = state[slot.tensor]
        again = permute_state(state, spec, moved)[slot.tensor]
        unknown = frozenset(one.group for one in others)
        standing = Standing(state, {slot.tensor: again}, spec, identity, unknown)
        first, second = up_to_order_of(standing, slot.tensor, others)
        assert torch.equal(first, second), slot
        untouched = up_to_order_of(Standing(state, shuffled, spec, identity), slot.tensor, ())
        assert untouched[0] is tensor
        assert untouched[1] is shuffled[slot.tensor]


def test_similarity_is_the_best_over_all_orders_of_an_unknown_group() -> None:
    torch.manual_seed(0)
    reference, target = (
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4), nn.Tanh()) for _ in range(2)
    )
    reference, target = (nn.Sequential(*net, nn.Linear(4, 2)) for net in (reference, target))
    spec = discover_symmetry(reference, torch.randn(2, 2))
    one, two, identity = tensors_of(reference), tensors_of(target), identity_permutations(spec)
    found = unit_similarity(Standing(one, two, spec, identity, unknown=frozenset({"2"})), spec["0"])[0]
    own = sum(one[name] @ two[name].T for name in ("0.weight",)) + torch.outer(one["0.bias"], two["0.bias"])
    for i in range(3):
        for j in range(3):
            outgoing = max(
                float(one["2.weight"][:, i] @ two["2.weight"][list(order), j]) for order in orders(range(4))
            )
            assert float(found[i, j]) == pytest.approx(float(own[i, j]) + outgoing, abs=1e-6)


def test_positions_of_one_unit_are_sorted_each_alone() -> None:
    tensor = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0, 0.0]])
    slot = Slot("a", "w", (1,), Layout(1, 3, stride=2, inner=2))
    assert sorted_along(tensor, slot).tolist() == [[3.0, 0.0, 4.0, 1.0, 5.0, 2.0]]
    blocks = Slot("a", "w", (1,), Layout(2, 3, block_stride=3))
    assert sorted_along(tensor, blocks).tolist() == [[1.0, 3.0, 5.0, 0.0, 2.0, 4.0]]


def test_parts_of_complex_values_are_sorted_apart() -> None:
    tensor = torch.tensor([[2 + 1j, 1 + 3j, 3 + 2j]])
    assert sorted_along(tensor, Slot("a", "w", (1,), Layout(1, 3))).tolist() == [[1 + 1j, 2 + 2j, 3 + 3j]]


def test_trained_networks_end_closer_than_from_the_identity() -> None:
    data = load_digits()
    nets = [
        train_endpoint(lambda: build_model("mlp", inputs=64, widths=[32] * 3), data, seed=s, epochs=5)
        for s in range(4)
    ]
    spec = discover_symmetry(nets[0], data.train_images[:2])

    def closeness(start: str) -> float:
        pairs = [(a, b) for i, a in enumerate(nets) for b in nets[:i]]
        return sum(weight_matching(a, b, spec, start=start).objective[-1] for a, b in pairs)  # type: ignore[arg-type]

    assert closeness("invariants") > closeness("identity")


def test_networks_that_are_close_already_stay() -> None:
    problem = planted_case("mlp_relu")
    state = tensors_of(problem.reference)
    near = {name: tensor + 1e-3 * torch.randn_like(tensor) for name, tensor in state.items()}
    found = weight_matching(state, near, problem.spec)
    assert equal(found.permutations, identity_permutations(problem.spec))


def test_an_unknown_start_is_refused() -> None:
    problem = planted_case("mlp_relu")
    with pytest.raises(SpecError, match="'middle'"):
        weight_matching(problem.reference, problem.target, problem.spec, start="middle")  # type: ignore[arg-type]


def test_steps_keep_inner_products_of_sorted_values() -> None:
    values = torch.randn(8, 3, 768, generator=torch.Generator().manual_seed(0)).sort(-1).values
    steps = in_steps(values, 2)
    assert steps.shape[:2] == values.shape[:2]
    assert steps.shape[2] < 768 / 8
    found, exact = (one.flatten(1) @ one.flatten(1).T for one in (steps, values))
    torch.testing.assert_close(found, exact, rtol=5e-3, atol=0)
    constant = torch.ones(2, 301)
    torch.testing.assert_close(in_steps(constant, 1).square().sum(1), constant.square().sum(1))
