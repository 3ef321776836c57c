"""Relations built by hand and the groups they must leave."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkhorn_rebasin.symmetry.labels.numbering import combine, factorize, mix
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.class_matching import contract_classes
from sinkhorn_rebasin.symmetry.solving.color_refinement import refine
from sinkhorn_rebasin.symmetry.solving.solver import Solution, solve


def sizes(solution: Solution) -> Counter:
    return Counter((group.size, group.blocks) for group in solution.groups if group.valid)


def test_units_without_relations_are_one_group() -> None:
    relations = Relations()
    relations.new_units((4,))
    solution = solve(relations)
    assert sizes(solution) == {(4, 1): 1}
    assert solution.unit.tolist() == [0, 1, 2, 3]


def test_nothing_to_solve() -> None:
    assert solve(Relations()).groups == []


def test_matched_classes_are_one_group_in_one_order() -> None:
    relations = Relations()
    first, second = relations.new_units((4,)), relations.new_units((4,))
    relations.relate(first, second[[2, 0, 3, 1]])
    solution = solve(relations)
    assert sizes(solution) == {(4, 1): 1}
    assert solution.unit[first].tolist() == solution.unit[second[[2, 0, 3, 1]]].tolist()


def test_a_directed_cycle_freezes() -> None:
    relations = Relations()
    units = relations.new_units((5,))
    relations.relate(units, np.roll(units, 1))
    assert not sizes(solve(relations))


def test_classes_matched_in_two_ways_freeze() -> None:
    relations = Relations()
    first, second = relations.new_units((5,)), relations.new_units((5,))
    relations.relate(first, second)
    relations.relate(first, np.roll(second, 1))
    assert not sizes(solve(relations))


def test_pairs_that_a_second_matching_swaps_may_be_exchanged_and_turned_round() -> None:
    relations = Relations()
    first, second = relations.new_units((6,)), relations.new_units((6,))
    relations.relate(first, second)
    relations.relate(first, second[[1, 0, 3, 2, 5, 4]])
    assert sizes(solve(relations)) == Counter({(3, 1): 1, (2, 3): 1})


def test_triples_that_a_second_matching_turns_are_given_up() -> None:
    relations = Relations()
    first, second = relations.new_units((6,)), relations.new_units((6,))
    relations.relate(first, second)
    relations.relate(first, second[[1, 2, 0, 4, 5, 3]])
    # The triples could be exchanged and each turned, which is no free permutation; claiming nothing is safe.
    assert not sizes(solve(relations))


def test_stars_give_nested_groups() -> None:
    relations = Relations()
    centres, leaves = relations.new_units((3,)), relations.new_units((3, 4))
    relations.relate(np.repeat(centres, 4), leaves)
    solution = solve(relations)
    assert sizes(solution) == {(3, 1): 1, (4, 3): 1}
    inner = next(group for group in solution.groups if group.blocks == 3)
    assert solution.groups[inner.parent].size == 3
    assert np.array_equal(solution.unit[centres], [0, 1, 2])
    assert np.array_equal(solution.unit[leaves] // 4, np.repeat([[0], [1], [2]], 4, axis=1))


def test_stars_of_stars_nest_twice() -> None:
    relations = Relations()
    roots, centres, leaves = (
        relations.new_units((2,)),
        relations.new_units((2, 3)),
        relations.new_units((2, 3, 4)),
    )
    relations.relate(np.repeat(roots, 3), centres)
    relations.relate(np.repeat(centres, 4), leaves)
    assert sizes(solve(relations)) == {(2, 1): 1, (3, 2): 1, (4, 6): 1}


def test_stars_of_two_sizes_do_not_mix() -> None:
    relations = Relations()
    centres, leaves = relations.new_units((4,)), relations.new_units((10,))
    relations.relate(np.repeat(centres, [2, 2, 3, 3]), leaves)
    found = sizes(solve(relations))
    assert found == {(2, 1): 2, (2, 2): 1, (3, 2): 1}


def test_two_blocks_with_members_in_another_order() -> None:
    relations = Relations()
    centres, leaves, others = (
        relations.new_units((2,)),
        relations.new_units((2, 3)),
        relations.new_units((6,)),
    )
    relations.relate(np.repeat(centres, 3), leaves)
    order = np.array([4, 0, 5, 2, 1, 3])
    relations.relate(leaves, others[order])
    solution = solve(relations)
    assert sizes(solution) == {(2, 1): 1, (3, 2): 1}
    assert np.array_equal(solution.unit[leaves].ravel(), solution.unit[others[order]])


def test_a_relation_of_all_with_all_says_nothing() -> None:
    relations = Relations()
    first, second = relations.new_units((3,)), relations.new_units((4,))
    relations.relate(np.repeat(first, 4), np.tile(second, 3))
    assert sizes(solve(relations)) == {(3, 1): 1, (4, 1): 1}


def test_fixed_units_stay_and_the_rest_moves() -> None:
    relations = Relations()
    units = relations.new_units((5,))
    relations.fix(units[[1, 3]], "told so")
    solution = solve(relations)
    assert sizes(solution) == {(3, 1): 1}
    assert (solution.group[[1, 3]] == -1).all()
    assert "told so" in relations.reasons.values()


def test_units_that_meet_different_values_are_told_apart() -> None:
    relations = Relations()
    units = relations.new_units((5,))
    relations.relate(units, np.array([-1, -2, -1, -2, -1]))
    assert sizes(solve(relations)) == {(3, 1): 1, (2, 1): 1}


@pytest.mark.parametrize(
    ("ids", "groups"),
    [
        ([0, 1, 2, 3], {(4, 1): 1}),
        ([0, 1], {(2, 1): 2}),
        ([0, 0, 1, 1, 2, 2, 3, 3], {(4, 1): 1}),
        ([0, 0, 1, 2, 3], {(3, 1): 1}),
    ],
)
def test_units_that_occur_unevenly_are_told_apart(ids: list[int], groups: dict) -> None:
    relations = Relations()
    relations.new_units((4,))
    relations.mark_partial(np.array(ids), "a part")
    assert sizes(solve(relations)) == groups


def test_contraction_keeps_what_is_no_matching() -> None:
    relations = Relations()
    first, second, third = relations.new_units((2,)), relations.new_units((2,)), relations.new_units((4,))
    relations.relate(first, second)
    relations.relate(np.repeat(second, 2), third)
    representative, edges = contract_classes(relations)
    assert representative.tolist() == [0, 1, 0, 1, 4, 5, 6, 7]
    assert [(a.tolist(), b.tolist()) for a, b, _ in edges] == [([0, 0, 1, 1], [4, 5, 6, 7])]


def test_refinement_tells_ends_of_a_path_from_its_middle() -> None:
    source, target, kind = np.array([0, 1, 2]), np.array([1, 2, 3]), np.ones(3, dtype=np.int64)
    colors = refine(np.zeros(4, dtype=np.int64), source, target, kind)
    assert len(set(colors.tolist())) == 4
    cycle = refine(
        np.zeros(4, dtype=np.int64), np.arange(4), (np.arange(4) + 1) % 4, np.ones(4, dtype=np.int64)
    )
    assert set(cycle.tolist()) == {0}
    kinds = refine(np.zeros(4, dtype=np.int64), np.array([0, 2]), np.array([1, 3]), np.array([1, 2]))
    assert len(set(kinds.tolist())) == 4


def test_hashes_depend_on_order() -> None:
    values = np.arange(1000)
    assert len(np.unique(mix(values))) == 1000
    one, two = mix(np.array([1])), mix(np.array([2]))
    assert combine(one, two) != combine(two, one)
    assert factorize(np.array([30, 10, 30])).tolist() == [1, 0, 1]


def generated(solution: Solution, count: int) -> set[tuple[int, ...]]:
    """Every permutation of the traced units that the groups allow, blocks and all."""
    found = set()
    groups = solution.groups
    choices = [
        list(itertools.product(itertools.permutations(range(group.size)), repeat=group.blocks))
        for group in groups
    ]
    keys = list(zip(solution.group.tolist(), solution.unit.tolist(), solution.role.tolist(), strict=True))

    def moved(group: int, unit: int, chosen: tuple) -> int:
        block, place = divmod(unit, groups[group].size)
        new = block if groups[group].parent < 0 else moved(groups[group].parent, block, chosen)
        return new * groups[group].size + chosen[group][block][place]

    for chosen in itertools.product(*choices):
        image = [
            keys.index((group, moved(group, unit, chosen), role)) if group >= 0 else number
            for number, (group, unit, role) in enumerate(keys)
        ]
        found.add(tuple(image))
    return found


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_relations_are_preserved_by_every_permutation_claimed(data: st.DataObject) -> None:
    relations = Relations()
    for _ in range(data.draw(st.integers(1, 3))):
        relations.new_units((data.draw(st.integers(1, 4)),))
    units = st.integers(0, relations.count - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        pairs = data.draw(st.lists(st.tuples(units, units), min_size=1, max_size=6))
        relations.relate(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    solution = solve(relations)
    if not all(group.valid for group in solution.groups):
        return
    classes = relations.classes()
    edges = {
        (int(a), int(b), kind) for one, two, kind in relations.edges for a, b in zip(one, two, strict=True)
    }
    for image in generated(solution, relations.count):
        assert sorted(image) == list(range(relations.count))
        assert all(classes[i] == classes[j] for i, j in enumerate(image))
        assert {(image[a], image[b], kind) for a, b, kind in edges} == edges
