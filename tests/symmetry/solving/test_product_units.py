"""Units that are all the tuples of others leave those free."""

from __future__ import annotations

import numpy as np
import pytest

from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.solver import Solution, solve


def table(shadows: int) -> Solution:
    """Two rows and three columns, known only by the six places where they meet, and further names for each row."""
    relations = Relations()
    rows, columns = relations.new_units((2,)), relations.new_units((3,))
    places = relations.new_units((2, 3))
    relations.relate(places, np.broadcast_to(rows[:, None], (2, 3)))
    relations.relate(places, np.broadcast_to(columns, (2, 3)))
    for _ in range(shadows):
        again = relations.new_units((2,))
        relations.relate(places, np.broadcast_to(again[:, None], (2, 3)))
    return solve(relations)


@pytest.mark.parametrize("shadows", [0, 1, 2])
def test_rows_and_columns_are_free_and_places_follow_them(shadows: int) -> None:
    solution = table(shadows)
    assert sorted((group.size, group.blocks) for group in solution.groups) == [(2, 1), (3, 1)]
    rows, columns, places = solution.unit[:2], solution.unit[2:5], solution.coordinates[5:11]
    assert sorted(rows) == [0, 1]
    assert sorted(columns) == [0, 1, 2]
    for place, (row, column) in zip(places, np.ndindex(2, 3), strict=True):
        units = {solution.group[u]: solution.unit[u] for u in place}
        assert units == {solution.group[0]: rows[row], solution.group[2]: columns[column]}
    for shadow in range(shadows):
        # Another name for a row belongs to the row's group and moves with it.
        first = 11 + 2 * shadow
        assert list(solution.unit[first : first + 2]) == list(rows)
        assert set(solution.group[first : first + 2]) == {solution.group[0]}


def test_a_table_with_a_missing_place_is_left_alone() -> None:
    relations = Relations()
    rows, columns = relations.new_units((2,)), relations.new_units((2,))
    places = relations.new_units((3,))
    relations.relate(places, rows[[0, 0, 1]])
    relations.relate(places, columns[[0, 1, 0]])
    assert not any(group.valid for group in solve(relations).groups)
