"""Factors of one tensor that share an axis: which of their entries come together must stay as it is."""

from __future__ import annotations

import math
from itertools import combinations

from sinkhorn_rebasin.symmetry.labels import Factor, Labels, reduced
from sinkhorn_rebasin.symmetry.numbering import count_distinct
from sinkhorn_rebasin.symmetry.relations import Relations

MOST_COMPARED = 1 << 22


def meet_overlapping(relations: Relations, labels: Labels) -> None:
    """Relate, along the axes that two factors share, what stands at the same place.

    After elements have been moved, units may stand in some rows only, say; a permutation must not carry them
    where no such element is. Nothing is said when every entry meets every other.
    """
    for first, second in combinations(labels.factors, 2):
        common = set(first.axes) & set(second.axes)
        if not common or not (first.has_units or second.has_units) or _all_meet(labels, first, second):
            continue
        left, right = (
            reduced(relations, Labels(labels.shape, (factor,)), set(factor.axes) - common)
            for factor in (first, second)
        )
        if left.factors and right.factors:
            axes = tuple(sorted(common))
            relations.relate(
                left.factors[0].over(axes, labels.shape), right.factors[0].over(axes, labels.shape)
            )


def _all_meet(labels: Labels, first: Factor, second: Factor) -> bool:
    """Whether all pairs of entries of two factors occur; over too many positions it is not looked for."""
    axes = tuple(sorted({*first.axes, *second.axes}))
    if math.prod(labels.shape[axis] for axis in axes) > MOST_COMPARED:
        return False
    pairs = count_distinct(first.over(axes, labels.shape), second.over(axes, labels.shape))
    return pairs == math.prod(count_distinct(factor.ids) for factor in (first, second))
