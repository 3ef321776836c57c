from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.meeting import joined
from sinkhorn_rebasin.symmetry.labels.relations import Relations


def along(shape: tuple[int, ...], axis: int, ids: np.ndarray) -> Labels:
    return Labels(shape, (Factor((axis,), ids),))


def pairs(relations: Relations) -> list[set[int]]:
    return [set(pair) for a, b, _ in relations.edges for pair in zip(a.tolist(), b.tolist(), strict=True)]


def test_units_that_meet_are_related_one_to_one() -> None:
    relations = Relations()
    left, right = relations.new_units((3,)), relations.new_units((3,))
    result = joined(relations, [along((2, 3), 1, left), along((3,), 0, right)], (2, 3))
    assert [(factor.axes, factor.ids.tolist()) for factor in result.factors] == [((1,), [0, 1, 2])]
    assert pairs(relations) == [{0, 3}, {1, 4}, {2, 5}]


def test_units_on_different_axes_do_not_meet() -> None:
    relations = Relations()
    rows, columns = relations.new_units((2,)), relations.new_units((3,))
    result = joined(relations, [along((2, 1), 0, rows), along((1, 3), 1, columns)], (2, 3))
    assert {factor.axes: factor.ids.tolist() for factor in result.factors} == {(0,): [0, 1], (1,): [2, 3, 4]}
    assert not relations.edges
