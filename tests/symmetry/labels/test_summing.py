from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.labels.summing import overlapping, sum_out


def test_equal_rows_become_one_new_unit_related_to_every_unit_of_its_row() -> None:
    relations = Relations()
    relations.new_units((4,))
    rows = Factor((0, 1), np.array([[0, 1], [0, 1], [2, 3]]))
    summed = sum_out(relations, Labels((3, 2), (rows,)), [1])
    (factor,) = summed.factors
    assert summed.shape == (3, 1)
    assert factor.axes == (0,)
    assert factor.ids.tolist() == [4, 4, 5]
    pairs = [set(zip(a.tolist(), b.tolist(), strict=True)) for a, b, _ in relations.edges]
    related = {frozenset(pair) for several in pairs for pair in several}
    assert related == {frozenset(pair) for pair in [(4, 0), (4, 1), (5, 2), (5, 3)]}


def test_units_along_the_axis_alone_vanish() -> None:
    relations = Relations()
    units = relations.new_units((2,))
    kept = Factor((0,), relations.new_units((3,)))
    summed = sum_out(relations, Labels((3, 2), (kept, Factor((1,), units))), [1])
    assert [factor.ids.tolist() for factor in summed.factors] == [[2, 3, 4]]


def test_factors_that_share_an_axis_cluster() -> None:
    first, second, third = (Factor(axes, np.zeros((1,) * len(axes), int)) for axes in [(0, 1), (1, 2), (3,)])
    assert [len(cluster) for cluster in overlapping([first, third, second], [1, 3])] == [1, 2]
    assert [len(cluster) for cluster in overlapping([first, third, second], [3])] == [1, 1, 1]
