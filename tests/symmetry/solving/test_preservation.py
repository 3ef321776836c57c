"""A solution that is wrong is not claimed, however it came about."""

from __future__ import annotations

import numpy as np
import pytest

from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.preservation import preserving_slots
from sinkhorn_rebasin.symmetry.solving.slot_tables import FoundSlot, find_slots
from sinkhorn_rebasin.symmetry.solving.solver import Solution, SolvedGroup, solve


class Traced:
    """Two tensors of four units, and one whose eight are the pairs of one of the first and one of two more."""

    def __init__(self, *, matched: bool = False) -> None:
        self.relations = Relations()
        self.first, self.second = self.relations.new_units((4,)), self.relations.new_units((4,))
        self.pairs, self.rows = self.relations.new_units((2, 4)), self.relations.new_units((2,))
        self.relations.relate(self.pairs, np.broadcast_to(self.first, (2, 4)))
        self.relations.relate(self.pairs, np.broadcast_to(self.rows[:, None], (2, 4)))
        if matched:
            self.relations.relate(self.first, self.second[[2, 0, 3, 1]])
        self.labels = {
            "first": Labels((4,), (Factor((0,), self.first),)),
            "second": Labels((4,), (Factor((0,), self.second),)),
            "pairs": Labels((8,), (Factor((0,), self.pairs.ravel()),)),
            "rows": Labels((2,), (Factor((0,), self.rows),)),
        }

    def kept(self, solution: Solution, slots: list[FoundSlot] | None = None) -> dict[str, set[int]]:
        """The tensors on which slots are left, and the sizes of their groups."""
        if slots is None:
            slots = find_slots(solution, self.labels)
        kept = preserving_slots(self.relations, solution, self.labels, slots)
        assert all(solution.groups[slot.group].valid for slot in kept)
        return {name: {slot.layout.size for slot in kept if slot.tensor == name} for name in self.labels}


ALL = {"first": {4}, "second": {4}, "pairs": {2, 4}, "rows": {2}}


@pytest.mark.parametrize("matched", [False, True])
def test_what_is_right_is_kept(matched: bool) -> None:
    traced = Traced(matched=matched)
    solution = solve(traced.relations)
    assert traced.kept(solution) == ALL
    assert all(group.valid for group in solution.groups)


def test_units_that_follow_each_other_are_not_moved_apart() -> None:
    solution = solve(Traced().relations)
    assert Traced(matched=True).kept(solution) == {"first": set(), "second": set(), "pairs": {2}, "rows": {2}}


def test_units_that_are_marked_are_not_moved() -> None:
    traced = Traced()
    solution = solve(traced.relations)
    traced.relations.fix(traced.second[1:2], "told so")
    assert traced.kept(solution) == ALL | {"second": set()}


@pytest.mark.parametrize("lost", ["first", "pairs", "rows"])
def test_a_group_that_lost_a_slot_stays(lost: str) -> None:
    traced = Traced()
    solution = solve(traced.relations)
    slots = [slot for slot in find_slots(solution, traced.labels) if slot.tensor != lost]
    kept = traced.kept(solution, slots)
    expected = {"first": {4}, "pairs": {2, 4}, "rows": {2}}[lost]
    assert kept == {name: sizes - expected if name != "second" else sizes for name, sizes in ALL.items()}


def test_a_slot_with_positions_in_another_order_is_noticed() -> None:
    traced = Traced()
    solution = solve(traced.relations)
    slots = find_slots(solution, traced.labels)
    wrong = Layout.from_table(np.array([[[0, 4], [1, 5], [2, 6], [7, 3]]]))
    slots = [
        FoundSlot(slot.group, slot.tensor, slot.axes, wrong)
        if slot.tensor == "pairs" and slot.layout.size == 4
        else slot
        for slot in slots
    ]
    assert traced.kept(solution, slots) == {"first": set(), "second": {4}, "pairs": {2}, "rows": {2}}


def test_blocks_of_two_units_that_swap_together_only_are_noticed() -> None:
    relations = Relations()
    heads, units = relations.new_units((2,)), relations.new_units((2, 2))
    relations.relate(np.repeat(heads, 2), units)
    labels = {"w": Labels((4,), (Factor((0,), units.ravel()),))}
    solution = solve(relations)
    assert [(group.size, group.blocks) for group in solution.groups] == [(2, 1), (2, 2)]
    relations.relate(units[0], units[1])
    kept = preserving_slots(relations, solution, labels, find_slots(solution, labels))
    assert not any(slot.layout.blocks == 2 for slot in kept)


def test_two_units_that_the_solution_does_not_tell_apart_stay() -> None:
    relations = Relations()
    units = relations.new_units((4,))
    labels = {"w": Labels((4,), (Factor((0,), units),))}
    same = np.zeros(4, dtype=np.int64)
    role, unit, none = same.astype(np.uint64), np.array([0, 0, 1, 1]), np.empty((4, 0), dtype=np.int64)
    solution = Solution([SolvedGroup(2, 1, -1)], same, unit, role, none, role)
    assert preserving_slots(relations, solution, labels, find_slots(solution, labels)) == []
