from __future__ import annotations

import numpy as np
import pytest

from sinkhorn_rebasin.symmetry.labels.concatenating import concatenated
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, fixed_labels, matching_axes, simplified
from sinkhorn_rebasin.symmetry.labels.meeting import joined
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.labels.summing import common_refinement, sum_out


def edges(relations: Relations) -> list[list[tuple[int, int]]]:
    return [list(zip(a.tolist(), b.tolist(), strict=True)) for a, b, _ in relations.edges]


def along(shape: tuple[int, ...], axis: int, ids: list[int]) -> Labels:
    return Labels(shape, (Factor((axis,), np.array(ids)),))


@pytest.mark.parametrize(
    ("old", "new", "runs"),
    [
        ((2, 3, 4), (2, 12), [((0,), (0,)), ((1, 2), (1,))]),
        ((6, 4), (2, 3, 4), [((0,), (0, 1)), ((1,), (2,))]),
        ((2, 6), (3, 4), [((0, 1), (0, 1))]),
        ((4,), (4, 1), [((0,), (0, 1))]),
        ((4, 1), (4,), [((0, 1), (0,))]),
        ((5, 7), (5, 7), [((0,), (0,)), ((1,), (1,))]),
    ],
)
def test_axes_that_hold_the_same_elements(old: tuple, new: tuple, runs: list) -> None:
    assert matching_axes(old, new) == runs


def dense(labels: Labels) -> np.ndarray:
    """All factors at every position: what numpy itself would move."""
    axes = tuple(range(len(labels.shape)))
    columns = [factor.over(axes, labels.shape) for factor in labels.factors]
    return np.stack(columns, -1) if columns else np.zeros((*labels.shape, 0), dtype=np.int64)


def partition(array: np.ndarray) -> np.ndarray:
    """Which positions carry equal labels, as numbers in order of appearance."""
    flat = array.reshape(-1, array.shape[-1]) if array.shape[-1] else np.zeros((array.size or 1, 1))
    _, first, place = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place.ravel()]


@pytest.mark.parametrize("shape", [(6, 4), (2, 12), (24,), (2, 3, 4), (3, 8), (24, 1), (1, 2, 3, 2, 2)])
def test_reshaping_moves_labels_as_elements(shape: tuple[int, ...]) -> None:
    labels = Labels((2, 3, 4), (Factor((0,), np.array([-1, -2])), Factor((1,), np.array([0, 1, 2]))))
    moved = labels.reshaped(shape)
    assert moved.shape == shape
    assert np.array_equal(partition(dense(moved)), partition(dense(labels).reshape(*shape, -1)))


def test_a_unit_alone_keeps_an_axis() -> None:
    kept = simplified((1, 5), [Factor((0,), np.array([3]))])
    assert [factor.ids.tolist() for factor in kept.factors] == [[3]]
    assert simplified((2, 5), [Factor((0, 1), np.tile([0, 1, 2, 3, 4], (2, 1)))]).factors[0].axes == (1,)


def test_taking_broadcasting_and_renaming() -> None:
    labels = along((2, 3), 1, [0, 1, 2])
    assert labels.taken(1, np.array([2, 0])).factors[0].ids.tolist() == [2, 0]
    assert labels.broadcast((4, 2, 3)).factors[0].axes == (2,)
    assert labels.renamed((3, 2), [1, 0]).factors[0].axes == (0,)
    assert fixed_labels((2, 1, 3)).factors[1].ids.tolist() == [-1, -2, -3]
    assert labels.units.tolist() == [0, 1, 2]


def test_joining_relates_what_meets() -> None:
    relations = Relations()
    a, b = relations.new_units((3,)), relations.new_units((3,))
    result = joined(relations, [along((2, 3), 1, a.tolist()), along((3,), 0, b[::-1].tolist())], (2, 3))
    assert edges(relations) == [[(0, 5), (1, 4), (2, 3)]]
    assert [factor.axes for factor in result.factors] == [(1,)]


def test_joining_with_a_constant_marks() -> None:
    relations = Relations()
    units = relations.new_units((3,)).tolist()
    joined(relations, [along((3,), 0, units), along((3,), 0, [-1, -2, -1])], (3,))
    assert not relations.edges
    assert [(u.tolist(), v.tolist()) for u, v, _ in relations.marks] == [([0, 1, 2], [-1, -2, -1])]


def test_joining_across_axes_keeps_both() -> None:
    relations = Relations()
    a, b = relations.new_units((2,)).tolist(), relations.new_units((3,)).tolist()
    result = joined(relations, [along((2, 3), 0, a), along((2, 3), 1, b)], (2, 3))
    assert not relations.edges
    assert sorted(factor.axes for factor in result.factors) == [(0,), (1,)]


def test_reducing_makes_blocks() -> None:
    relations = Relations()
    units = relations.new_units((2, 3))
    kept = sum_out(relations, Labels((2, 3), (Factor((0, 1), units),)), [1])
    assert kept.shape == (2, 1)
    assert kept.factors[0].ids.tolist() == [6, 7]
    assert edges(relations) == [[(6, 0), (6, 1), (6, 2), (7, 3), (7, 4), (7, 5)]]
    assert not sum_out(relations, along((2, 3), 1, [0, 1, 2]), [1]).factors


def test_reducing_counts_how_often_a_unit_occurs() -> None:
    relations = Relations()
    relations.new_units((2,))
    sum_out(relations, Labels((2, 3), (Factor((0, 1), np.array([[0, 1, 0], [1, 0, 1]])),)), [1])
    assert edges(relations) == [[(2, 1), (3, 0)], [(2, 0), (3, 1)]]


def test_merging_makes_a_unit_for_each_combination() -> None:
    relations = Relations()
    a, b = relations.new_units((2,)), relations.new_units((3,))
    factor = common_refinement(relations, (2, 3), [Factor((0,), a), Factor((1,), b)])
    assert factor.axes == (0, 1)
    assert len(np.unique(factor.ids)) == 6
    assert [len(one) for one in edges(relations)] == [6, 6]


def test_concatenating_keeps_units_and_tells_copies_apart() -> None:
    relations = Relations()
    a, b = relations.new_units((2,)).tolist(), relations.new_units((3,)).tolist()
    apart = concatenated(relations, [along((2,), 0, a), along((3,), 0, b)], 0)
    assert [factor.ids.tolist() for factor in apart.factors] == [[0, 1, 2, 3, 4]]
    twice = concatenated(relations, [along((2,), 0, a), along((2,), 0, a)], 0)
    assert len(np.unique(partition(dense(twice)))) == 4
    blank = concatenated(relations, [along((2,), 0, a), Labels((3,))], 0)
    assert partition(dense(blank)).tolist() == [0, 1, 2, 2, 2]
