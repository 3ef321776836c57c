"""Sum labels over axes: rows of units become blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, simplified
from sinkhorn_rebasin.symmetry.labels.numbering import (
    Ids,
    count_distinct,
    determines,
    distinct,
    distinct_values,
    factorize,
    factorize_by_appearance,
    keyed,
    row_hashes,
)
from sinkhorn_rebasin.symmetry.labels.relations import Relations


def common_refinement(relations: Relations, shape: Sequence[int], factors: Sequence[Factor]) -> Factor:
    """Return one factor, with an entry for each combination.

    >>> one, other = Factor((0,), np.array([-1, -2])), Factor((1,), np.array([-1, -2]))
    >>> common_refinement(Relations(), (2, 2), [one, other]).ids.tolist()
    [[-1, -2], [-3, -4]]
    """
    if len(factors) == 1:
        return factors[0]
    axes = tuple(sorted({axis for factor in factors for axis in factor.axes}))
    columns = [factor.over(axes, shape) for factor in factors]
    first, place = factorize_by_appearance(keyed(*columns))
    if not any(factor.has_units for factor in factors):
        return Factor(axes, -1 - place.reshape(columns[0].shape))
    units = relations.new_units((len(first),))
    for column in columns:
        relations.relate(units, column.ravel()[first])
    return Factor(axes, units[place].reshape(columns[0].shape))


def sum_out(relations: Relations, labels: Labels, axes: Iterable[int]) -> Labels:
    """Sum labels over axes, kept at length 1.

    Each remaining position held a *row* of units. Equal rows become one new unit, a block, related to every unit of
    its row. A fixed value at the same position is part of the row's identity.

    >>> relations = Relations()
    >>> labels = Labels((3, 2), (Factor((0, 1), relations.new_units((4,))[[[0, 1], [2, 3], [0, 1]]]),))
    >>> sum_out(relations, labels, [1]).factors[0].ids.tolist()
    [4, 5, 4]
    """
    gone = sorted(set(axes))
    shape = tuple(1 if axis in gone else n for axis, n in enumerate(labels.shape))
    factors = list(labels.factors_outside(gone))
    for cluster in overlapping(labels.factors_covering(gone), gone):
        partial = [factor for factor in cluster if not set(factor.axes) <= set(gone)]
        if 0 in labels.shape:
            continue
        if not partial:
            _count_together(relations, labels.shape, cluster)
            continue
        factor = common_refinement(relations, labels.shape, partial)
        along = [f for f in cluster if set(f.axes) <= set(gone)]
        if along and not _placed_alike(relations, labels.shape, factor, along, gone):
            factor = common_refinement(relations, labels.shape, [factor, *along])
        blocks = _blocks(relations, factor, gone)
        if not _follows(relations, shape, factors, blocks):
            factors.append(blocks)
    return simplified(shape, factors)


# Note [why sums see multiplicity]
# x + x + y is no symmetric function of x and y: swapping x and y changes it. So a block is related to units that
# occur once in its row by one kind, to units that occur twice by another. Likewise a unit that vanishes in a sum is
# marked with the fixed values that lie at its positions, and with how often each does.


def _count_together(relations: Relations, shape: Sequence[int], cluster: Sequence[Factor]) -> None:
    """Relate vanishing units to values at the same positions.

    See Note [why sums see multiplicity].
    """
    with_units = [factor for factor in cluster if factor.has_units]
    if len(cluster) < 2 or not with_units:
        return
    factor = common_refinement(relations, shape, with_units)
    axes = tuple(sorted({axis for other in cluster for axis in other.axes}))
    units = factor.over(axes, shape)
    place = factorize(units, *(f.over(axes, shape) for f in cluster if not f.has_units))
    values = factorize(*(f.over(axes, shape) for f in cluster if not f.has_units), np.bincount(place)[place])
    if values.max():
        relations.relate(units, -1 - values)


def _placed_alike(
    relations: Relations, shape: Sequence[int], factor: Factor, along: Sequence[Factor], gone: Sequence[int]
) -> bool:
    """Relate units to values where rows agree.

    Rows that share a unit must hold it at the same fixed values.
    """
    if any(f.has_units or not set(f.axes) <= set(factor.axes) for f in along):
        return False
    kept = [1 if axis in gone else length for axis, length in zip(factor.axes, factor.ids.shape, strict=True)]
    rows = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), factor.ids.shape)
    unit = factorize(factor.ids)
    value = factorize(*(f.over(factor.axes, shape) for f in along))
    values_of_unit = np.bincount(distinct(unit, value)[0])
    if count_distinct(unit, rows, value) < int(values_of_unit[distinct(unit, rows)[0]].sum()):
        return False
    relations.relate(factor.ids, -1 - value)
    return True


def _follows(relations: Relations, shape: Sequence[int], factors: Sequence[Factor], new: Factor) -> bool:
    """Relate a factor to one determining it."""
    for factor in factors:
        if factor.axes == new.axes and determines(factor.ids, new.ids):
            relations.relate(factor.ids, new.ids)
            return True
    fixed = [f for f in factors if set(f.axes) <= set(new.axes) and not f.has_units]
    if not fixed or {axis for f in fixed for axis in f.axes} != set(new.axes):
        return False
    values = factorize(*(f.over(new.axes, shape) for f in fixed))
    if not determines(values, new.ids):
        return False
    relations.relate(new.ids, -1 - values)
    return True


def overlapping(factors: Sequence[Factor], axes: Sequence[int]) -> list[list[Factor]]:
    """Cluster factors that share one of these axes."""
    clusters: list[list[Factor]] = []
    for factor in factors:
        near = [any(set(f.axes) & set(factor.axes) & set(axes) for f in c) for c in clusters]
        together = [f for c, touches in zip(clusters, near, strict=True) if touches for f in c]
        clusters = [c for c, touches in zip(clusters, near, strict=True) if not touches]
        clusters.append([*together, factor])
    return clusters


def _blocks(relations: Relations, factor: Factor, gone: Sequence[int]) -> Factor:
    """Make a block of each distinct row.

    See Note [why sums see multiplicity].
    """
    kept = [axis for axis in factor.axes if axis not in gone]
    order = [factor.axes.index(a) for a in kept] + [factor.axes.index(a) for a in factor.axes if a in gone]
    kept_shape = [factor.ids.shape[factor.axes.index(a)] for a in kept]
    rows = factor.ids.transpose(order).reshape(math.prod(kept_shape), -1)
    if bool((rows == rows[:, :1]).all()):
        return Factor(tuple(kept), rows[:, 0].reshape(kept_shape))
    first, place = factorize_by_appearance(row_hashes(rows))
    different = rows[first]
    if not factor.has_units:
        return Factor(tuple(kept), (-1 - place).reshape(kept_shape))
    units = relations.new_units((len(different),))
    owners = np.broadcast_to(units[:, None], different.shape)
    times = _multiplicity(different)
    for number in distinct_values(times):
        members = times == number
        relations.relate(owners[members], different[members])
    return Factor(tuple(kept), units[place].reshape(kept_shape))


def _multiplicity(rows: Ids) -> Ids:
    """Count how often each entry occurs in its row.

    >>> _multiplicity(np.array([[5, 5, 6], [1, 2, 3]])).tolist()
    [[2, 2, 1], [1, 1, 1]]
    """
    ordered = np.sort(rows, axis=1)
    times = np.ones_like(rows)
    repeating = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(repeating):
        entries = rows[repeating]
        place = factorize(np.broadcast_to(repeating[:, None], entries.shape), entries)
        times[repeating] = np.bincount(place)[place].reshape(entries.shape)
    return times
