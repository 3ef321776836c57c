"""Where units of a group are, and the tables of their positions, against loops over every position."""

from __future__ import annotations

import numpy as np
import pytest

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.membership import Members, Memberships
from sinkhorn_rebasin.symmetry.solving.slot_tables import find_slots
from sinkhorn_rebasin.symmetry.solving.solver import Solution, solve


def two_groups() -> tuple[Solution, np.ndarray, np.ndarray]:
    """Groups of three and of four units, each in two tensors."""
    relations = Relations()
    first, second = relations.new_units((3,)), relations.new_units((4,))
    relations.relate(first, relations.new_units((3,)))
    relations.relate(second, relations.new_units((4,)))
    return solve(relations), first, second


def along_axes(*units: np.ndarray) -> Labels:
    """Labels of a tensor with one unit at each place of every axis."""
    factors = tuple(Factor((axis,), ids) for axis, ids in enumerate(units))
    return Labels(tuple(len(ids) for ids in units), factors)


def group_of(solution: Solution, units: np.ndarray) -> int:
    """The number of the group that holds these units."""
    (group,) = set(solution.group[units].tolist())
    return group


def test_members_are_the_positions_whose_unit_is_of_the_group() -> None:
    solution, first, second = two_groups()
    ids = np.array([second[1], first[2], -1, first[0], second[3], first[2]])
    for units in (first, second):
        group = group_of(solution, units)
        members = Memberships(solution).of(ids, group)
        expected = [place for place, unit in enumerate(ids) if unit in units]
        assert members.length == 6
        assert members.positions.tolist() == expected
        assert members.unit.tolist() == [int(solution.unit[ids[place]]) for place in expected]
        assert not members.inside.any()


def test_spread_members_cover_every_position_with_none_in_between() -> None:
    roles = np.array([7, 8], dtype=np.uint64)
    members = Members(4, np.array([3, 1]), np.array([1, 0]), np.array([[5, 6]]), roles)
    spread = members.spread()
    assert spread.positions.tolist() == [0, 1, 2, 3]
    assert spread.unit.tolist() == [-1, 0, -1, 1]
    assert spread.inside.tolist() == [[0, 6, 0, 5]]
    assert spread.role.tolist() == [0, 8, 0, 7]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_slots_list_the_positions_of_each_unit(order: list[int]) -> None:
    solution, first, second = two_groups()
    labels = {"matrix": along_axes(second, first[order]), "vector": along_axes(first)}
    slots = {(slot.tensor, slot.axes): slot for slot in find_slots(solution, labels)}
    assert set(slots) == {("matrix", (0,)), ("matrix", (1,)), ("vector", (0,))}
    for (tensor, (axis,)), slot in slots.items():
        ids = {("matrix", 0): second, ("matrix", 1): first[order], ("vector", 0): first}[tensor, axis]
        expected = np.full(len(ids), -1)
        for place, unit in enumerate(ids):
            expected[solution.unit[unit]] = place
        assert slot.group == group_of(solution, ids)
        assert slot.layout.table().tolist() == [[[place] for place in expected]]


def test_units_of_unequal_width_make_their_group_invalid() -> None:
    solution, first, second = two_groups()
    uneven = {"good": along_axes(second), "bad": along_axes(first[[0, 1, 2, 2]])}
    slots = find_slots(solution, uneven)
    assert [slot.tensor for slot in slots] == ["good"]
    assert not solution.groups[group_of(solution, first)].valid
    assert solution.groups[group_of(solution, second)].valid
