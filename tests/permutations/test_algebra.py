from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    check_permutations,
    compose,
    identity_permutations,
    inverse,
    permutation_matrix,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.permutations.algebra import block_movement, unit_movement
from tests.permutations.specs import NESTED, PART, SPECS, state_of

# The last two drop a group in the middle of a chain and the outermost one.
ALL = [*SPECS.values(), NESTED.without("inner"), NESTED.without("heads"), NESTED.without("inner", "cell")]
specs = st.sampled_from(ALL)
laws = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def spec_and_permutations(draw: st.DrawFn, count: int) -> tuple[PermutationSpec, list[dict[str, Tensor]]]:
    spec = draw(specs)
    found = []
    for _ in range(count):
        one = {}
        for group in spec.groups:
            rows = [draw(st.permutations(range(group.size))) for _ in range(group.blocks)]
            one[group.name] = torch.tensor(rows).reshape(group.shape)
        found.append(one)
    return spec, found


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@laws
@given(spec_and_permutations(2))
def test_composing_acts_like_one_after_the_other(drawn: tuple) -> None:
    spec, (p, q) = drawn
    state = state_of(spec)
    assert same(
        permute_state(state, spec, compose(spec, q, p)), permute_state(permute_state(state, spec, p), spec, q)
    )


@laws
@given(spec_and_permutations(1))
def test_an_inverse_undoes_from_both_sides(drawn: tuple) -> None:
    spec, (p,) = drawn
    identity, state = identity_permutations(spec), state_of(spec)
    assert same(compose(spec, inverse(spec, p), p), identity)
    assert same(compose(spec, p, inverse(spec, p)), identity)
    assert same(inverse(spec, inverse(spec, p)), p)
    assert same(permute_state(permute_state(state, spec, p), spec, inverse(spec, p)), state)


@laws
@given(spec_and_permutations(3))
def test_composition_is_associative_with_a_neutral_element(drawn: tuple) -> None:
    spec, (p, q, r) = drawn
    assert same(compose(spec, r, compose(spec, q, p)), compose(spec, compose(spec, r, q), p))
    identity = identity_permutations(spec)
    assert same(compose(spec, p, identity), p)
    assert same(compose(spec, identity, p), p)
    assert same(inverse(spec, compose(spec, q, p)), compose(spec, inverse(spec, p), inverse(spec, q)))


@laws
@given(spec_and_permutations(1))
def test_movement_says_where_every_unit_comes_from(drawn: tuple) -> None:
    spec, (p,) = drawn
    for group in spec.groups:
        slots = [
            s for s in spec.slots_of(group.name) if len(spec.slots_on(s.tensor)) == 1 and s.layout.width == 1
        ]
        for slot in slots:
            numbers = torch.full(spec.shapes[slot.tensor], -1)
            positions = torch.from_numpy(slot.layout.table()).flatten()
            flat = numbers.movedim(slot.axes, tuple(range(len(slot.axes)))).clone()
            shape = flat.shape
            flat = flat.reshape(-1, *shape[len(slot.axes) :])
            flat[positions] = torch.arange(group.units).reshape(-1, *[1] * (flat.dim() - 1))
            numbers = flat.reshape(shape).movedim(tuple(range(len(slot.axes))), slot.axes)
            state = {**{n: torch.zeros(s) for n, s in spec.shapes.items()}, slot.tensor: numbers}
            if group.parent is None:
                moved = permute_state(state, spec, p)[slot.tensor]
                read = moved.movedim(slot.axes, tuple(range(len(slot.axes)))).reshape(-1, *flat.shape[1:])
                assert torch.equal(
                    read[positions].reshape(group.units, -1)[:, 0], unit_movement(spec, p, group.name)
                )


def test_movement_of_blocks_by_hand() -> None:
    p = {**identity_permutations(NESTED), "heads": torch.tensor([1, 0])}
    assert block_movement(NESTED, p, NESTED["inner"]).tolist() == [1, 0]
    assert block_movement(NESTED, p, NESTED["cell"]).tolist() == [3, 4, 5, 0, 1, 2]
    fewer = NESTED.without("inner")
    del p["inner"]
    assert block_movement(fewer, p, fewer["cell"]).tolist() == [3, 4, 5, 0, 1, 2]


def test_random_permutations_follow_their_generator() -> None:
    def draw(seed: int) -> dict[str, Tensor]:
        return random_permutations(NESTED, generator=torch.Generator().manual_seed(seed))

    assert same(draw(1), draw(1))
    assert not same(draw(1), draw(2))
    before = torch.get_rng_state()
    draw(3)
    assert torch.equal(torch.get_rng_state(), before)
    check_permutations(NESTED, draw(4))


def test_random_permutations_are_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = Counter(tuple(random_permutations(PART, generator=generator)["a"].tolist()) for _ in range(3000))
    assert len(counts) == 6
    # Five degrees of freedom: 25.7 is exceeded with probability 1e-4.
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 25.7


def test_matrices_move_what_indices_move() -> None:
    indices = torch.tensor([[2, 0, 1], [1, 0, 2]])
    values = torch.tensor([10.0, 20.0, 30.0])
    matrices = permutation_matrix(indices)
    assert torch.equal(matrices @ values, values[indices])
    assert torch.equal(matrices.sum(-1), torch.ones(2, 3))
    assert torch.equal(matrices.sum(-2), torch.ones(2, 3))
    assert permutation_matrix(indices, torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.tensor([0, 1]),
            r"group 'a' with shape \(3,\) \(indices\) or \(3, 3\) \(matrices\) but got \(2,\)",
        ),
        (torch.eye(2), r"'a' with shape .* but got \(2, 2\)"),
        (torch.tensor([0.0, 1.0, 2.0]), r"'a' with shape .* but got \(3,\)"),
        (torch.tensor([0, 1, 1]), r"'a' to be a permutation of 0..2 .* values \[0, 1, 1\]"),
        (torch.tensor([1, 2, 3]), r"'a' to be a permutation of 0..2"),
        (torch.tensor([0, 1, 2], dtype=torch.int32), "torch.long but got torch.int32"),
    ],
)
def test_what_is_no_permutation_is_refused(value: Tensor, message: str) -> None:
    given_ = {"a": value, "b": torch.arange(2)}
    for run in (
        lambda: check_permutations(PART, given_),
        lambda: inverse(PART, given_),
        lambda: compose(PART, identity_permutations(PART), given_),
        lambda: compose(PART, given_, identity_permutations(PART)),
        lambda: permute_state(state_of(PART), PART, given_),
    ):
        with pytest.raises(SpecError, match=message):
            run()


def test_a_missing_group_is_named() -> None:
    with pytest.raises(SpecError, match=r"none of 'b' \(given: \['a'\]\)"):
        check_permutations(PART, {"a": torch.arange(3)})
