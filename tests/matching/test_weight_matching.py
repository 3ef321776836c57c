from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.matching.weights.similarity import unit_similarity, units_of
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import (
    Layout,
    PermutationSpec,
    Slot,
    identity_permutations,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case, randomise
from tests.matcher_contract import MatcherContract, equal
from tests.planted import planted_case


def inner_product(reference: nn.Module, state: dict[str, Tensor], spec: PermutationSpec) -> float:
    names = [name for name in spec.shapes if name not in spec.buffers]
    own = dict(reference.named_parameters(remove_duplicate=False))
    return float(sum((own[name].detach().double() * state[name].double()).sum() for name in names))


class TestWeightMatching(MatcherContract):
    # Also networks with a weight that has the same units on both axes.
    cases = (*MatcherContract.cases, "resnet_option_a", "residual_mlp", "shared_layer", "glu")

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        return weight_matching(reference, target, spec, generator=generator)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("norm", [False, True])
def test_one_hidden_layer_reaches_the_best_of_all_permutations(seed: int, norm: bool) -> None:
    torch.manual_seed(seed)
    between = [nn.LayerNorm(5)] if norm else []
    reference, target = (
        randomise(nn.Sequential(nn.Linear(3, 5), *between, nn.ReLU(), nn.Linear(5, 2))) for _ in range(2)
    )
    spec = discover_symmetry(reference, torch.randn(2, 3))
    (name,) = spec.names
    found = weight_matching(reference, target, spec)
    best = max(
        inner_product(reference, permute_state(tensors_of(target), spec, {name: torch.tensor(order)}), spec)
        for order in itertools.permutations(range(5))
    )
    assert inner_product(reference, found.apply(target), spec) == pytest.approx(best, rel=1e-6)
    assert found.objective[-1] == pytest.approx(best, rel=1e-6)
    assert found.converged


@pytest.mark.parametrize(
    "name", ["mlp_relu", "resnet_option_b", "grouped", "grouped_twice", "residual_mlp", "heads"]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_falls_and_is_what_it_says(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    reference, target = (randomise(case(name).make()) for _ in range(2))
    spec = discover_symmetry(reference, case(name).make_inputs())
    found = weight_matching(reference, target, spec)
    start = inner_product(reference, tensors_of(target), spec)
    values = [start, *found.objective]
    assert all(later >= earlier - 1e-5 * abs(earlier) for earlier, later in itertools.pairwise(values))
    assert inner_product(reference, found.apply(target), spec) == pytest.approx(found.objective[-1], rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_on_both_axes_of_a_weight_never_lowers_the_objective(seed: int) -> None:
    torch.manual_seed(seed)
    reference, target = (randomise(case("residual_mlp").make()) for _ in range(2))
    spec = discover_symmetry(reference, torch.randn(6, 3))
    found = weight_matching(reference, target, spec)
    values = [inner_product(reference, tensors_of(target), spec), *found.objective]
    assert all(later >= earlier - 1e-5 * abs(earlier) for earlier, later in itertools.pairwise(values))
    assert found.converged


@pytest.mark.parametrize("name", ["mlp_relu", "resnet_option_b", "grouped"])
def test_no_single_swap_improves_what_was_found(name: str) -> None:
    torch.manual_seed(0)
    reference, target = (randomise(case(name).make()) for _ in range(2))
    spec = discover_symmetry(reference, case(name).make_inputs())
    found = weight_matching(reference, target, spec)
    best = inner_product(reference, found.apply(target), spec)
    for group in spec.groups:
        for block, (i, j) in itertools.product(
            range(group.blocks), itertools.combinations(range(group.size), 2)
        ):
            rows = found.permutations[group.name].reshape(group.blocks, group.size).clone()
            rows[block, [i, j]] = rows[block, [j, i]]
            swapped = {**found.permutations, group.name: rows.reshape(group.shape)}
            state = permute_state(tensors_of(target), spec, swapped)
            assert inner_product(reference, state, spec) <= best + 1e-4


@pytest.mark.parametrize(
    "name", ["mlp_relu", "conv2d", "grouped", "added_into_a_view", "glu", "resnet_option_a"]
)
def test_similarity_is_the_gain_of_every_pair(name: str) -> None:
    """Against the objective itself: the value of an assignment differs by the sum of its similarities."""
    torch.manual_seed(0)
    reference, target = (randomise(case(name).make()) for _ in range(2))
    spec = discover_symmetry(reference, case(name).make_inputs())
    identity = identity_permutations(spec)
    one, two = tensors_of(reference), tensors_of(target)
    for group in spec.groups:
        similarity = unit_similarity(Standing(one, two, spec, identity), group)
        drawn = random_permutations(spec, generator=torch.Generator().manual_seed(0))
        moved = permute_state(two, spec, {**identity, group.name: drawn[group.name]})
        gain = inner_product(reference, moved, spec) - inner_product(reference, two, spec)
        rows = drawn[group.name].reshape(group.blocks, group.size)
        picked = similarity.gather(-1, rows[..., None]).sum() - similarity.diagonal(dim1=1, dim2=2).sum()
        assert float(picked) == pytest.approx(gain, abs=1e-4)


def test_units_own_their_rows() -> None:
    tensor = torch.arange(24.0).view(2, 12)
    slot = Slot("a", "w", (1,), Layout(1, 3, stride=4, inner=4))
    rows = units_of(tensor, slot)
    assert rows.shape == (1, 3, 8)
    assert sorted(rows[0, 1].tolist()) == [4.0, 5.0, 6.0, 7.0, 16.0, 17.0, 18.0, 19.0]


def test_buffers_do_not_count() -> None:
    problem = planted_case("mlp_batch_norm")
    misled = dict(problem.target)
    misled["1.running_mean"] = 100 * torch.arange(5.0)
    found = weight_matching(problem.reference, misled, problem.spec)
    assert equal(found.permutations, problem.answer)


def test_states_will_do() -> None:
    problem = planted_case("conv2d")
    state = problem.reference.state_dict()
    found = weight_matching(state, problem.target, problem.spec)
    assert equal(found.permutations, problem.answer)
    rebased = found.apply(problem.target)
    assert all(torch.equal(rebased[name], state[name]) for name in problem.spec.shapes)


def test_without_a_generator_the_order_is_always_the_same() -> None:
    one, two = planted_case("resnet_option_b", 0), planted_case("resnet_option_b", 1)
    first, second = (weight_matching(one.reference, two.reference, one.spec) for _ in range(2))
    assert equal(first.permutations, second.permutations)


def test_dropped_groups_stay() -> None:
    problem = planted_case("mlp_relu")
    found = weight_matching(problem.reference, problem.target, problem.spec.without("0"))
    assert set(found.permutations) == {"2"}


def test_nothing_to_permute() -> None:
    problem = planted_case("mlp_relu")
    found = weight_matching(problem.reference, problem.target, problem.spec.without("0", "2"))
    assert found.converged
    assert not found.permutations
    assert found.objective == ()


def test_a_pass_too_few_is_told() -> None:
    one, two = planted_case("resnet_option_b", 0), planted_case("resnet_option_b", 1)
    assert not weight_matching(
        one.reference, two.reference, one.spec, max_passes=1, start="identity"
    ).converged


def test_a_spec_of_another_network_is_refused() -> None:
    problem, other = planted_case("mlp_relu"), planted_case("conv2d")
    with pytest.raises(SpecError, match=r"0\.weight"):
        weight_matching(problem.reference, problem.target, other.spec)
    wrong = replace(problem.spec, shapes={**problem.spec.shapes, "more": (2,)})
    with pytest.raises(SpecError, match="more"):
        weight_matching(problem.reference, problem.target, wrong)


def test_data_are_taken_as_by_all_methods_and_not_looked_at() -> None:
    def unread() -> Iterator[Tensor]:
        raise AssertionError("nothing reads the data")
        yield

    problem = planted_case("mlp_relu")
    found = weight_matching(problem.reference, problem.target, problem.spec, data=unread())
    expected = weight_matching(problem.reference, problem.target, problem.spec)
    assert equal(found.permutations, expected.permutations)


def test_a_search_whose_time_is_up_returns_what_it_has() -> None:
    problem = planted_case("mlp_relu")
    found = weight_matching(problem.reference, problem.target, problem.spec, seconds=1e-9)
    assert equal(found.permutations, identity_permutations(problem.spec))
    assert not found.converged
    enough = weight_matching(problem.reference, problem.target, problem.spec, seconds=60)
    assert equal(
        enough.permutations, weight_matching(problem.reference, problem.target, problem.spec).permutations
    )
    assert enough.converged
    with pytest.raises(SpecError, match="seconds above 0"):
        weight_matching(problem.reference, problem.target, problem.spec, seconds=0)


def test_a_search_that_is_over_at_once_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    problem = planted_case("mlp_relu")
    weight_matching(problem.reference, problem.target, problem.spec, progress=True)
    assert capsys.readouterr() == ("", "")


def test_progress_of_a_long_search_is_shown_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinkhorn_rebasin.matching.weights.watch.SHOWN_AFTER", 0.05)
    with Watch(progress=True) as watch:
        watch.begin("pass 1", 2)
        time.sleep(0.5)
        watch.step("first")
    out, err = capsys.readouterr()
    assert out == ""
    assert "pass 1" in err


@pytest.mark.parametrize("exact", [0, 1])
def test_weights_of_two_types_are_matched_as_they_are_in_one(exact: int) -> None:
    torch.manual_seed(0)
    pair = [nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)) for _ in range(2)]
    spec = discover_symmetry(pair[0], torch.ones(2, 4))
    expected = weight_matching(*pair, spec)
    pair[exact].double()
    found = weight_matching(*pair, spec)
    assert equal(found.permutations, expected.permutations)
    assert found.objective[-1] == pytest.approx(expected.objective[-1])


def test_bars_and_tables_leave_the_random_state_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first import of rich draws from Python's."""
    problem = planted_case("mlp_batch_norm")
    pair = problem.reference, problem.target, problem.spec
    for shown in (lambda: weight_matching(*pair, progress=True), lambda: str(problem.spec)):
        for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
            monkeypatch.delitem(sys.modules, name)
        before = random.getstate()
        shown()
        assert random.getstate() == before
