"""Join labels of tensors that an operation combines element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Ids, count_distinct, determines, factorize
from sinkhorn_rebasin.symmetry.labels.relations import Implied, Relations
from sinkhorn_rebasin.symmetry.labels.summing import common_refinement, sum_out


def joined(relations: Relations, labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
    """Join the labels of tensors, broadcast together.

    >>> relations = Relations()
    >>> left, right = (Labels((2,), (Factor((0,), relations.new_units((2,))),)) for _ in range(2))
    >>> joined(relations, [left, right], (2,)).factors[0].ids.tolist(), len(relations.edges)
    ([0, 1], 1)
    """
    result = Labels(tuple(shape))
    for other in labels:
        result = _join(relations, result, other.broadcast(shape))
    return result


def _join(relations: Relations, left: Labels, right: Labels) -> Labels:
    """Join the labels of two tensors of one shape."""
    if not left.factors or not right.factors:
        return left if left.factors else right
    factors = list(left.factors)
    for factor in right.factors:
        factors = _add(relations, left.shape, factors, factor)
    return without_implied(relations, Labels(left.shape, tuple(factors)))


def _add(relations: Relations, shape: Sequence[int], factors: list[Factor], new: Factor) -> list[Factor]:
    """Add a factor and relate it to others.

    The factors returned determine the new one and all that were there.

    Note:
        Fixed values beside units stay a factor of their own. A permutation of the units leaves the values in place.
    """
    overlapping = [f for f in factors if set(f.axes) & set(new.axes)]
    apart = [f for f in factors if not set(f.axes) & set(new.axes)]
    for factor in overlapping:
        if set(new.axes) <= set(factor.axes):
            wide = new.over(factor.axes, shape)
            if determines(factor.ids, wide):
                relations.relate(factor.ids, wide)
                note_implied(relations, shape, factor, [new, *(f for f in factors if f is not factor)])
                return [*factors, new] if id(factor.ids) in relations.implied else factors
    if not new.has_units:
        _meet(relations, shape, [factor for factor in overlapping if factor.has_units], new)
        return [*factors, new]
    nested = [f for f in overlapping if set(f.axes) <= set(new.axes)]
    crossing = [f for f in overlapping if not set(f.axes) <= set(new.axes)]
    columns = {id(f): f.over(new.axes, shape) for f in nested}
    free = [f for f in nested if not determines(new.ids, columns[id(f)])]
    if not any(factor.has_units for factor in free):
        for factor in nested:
            if not any(factor is f for f in free):
                relations.relate(new.ids, columns[id(factor)])
        if free:
            relations.relate(new.ids, -1 - factorize(*(columns[id(f)] for f in free)))
        _meet(relations, shape, crossing, new)
        note_implied(relations, shape, new, factors)
        return [*factors, new] if id(new.ids) in relations.implied else [*apart, *free, *crossing, new]
    combined = common_refinement(relations, shape, [*nested, new])
    _meet(relations, shape, crossing, combined)
    return [*apart, *crossing, combined]


def _meet(relations: Relations, shape: Sequence[int], crossing: list[Factor], new: Factor) -> None:
    """Relate a factor to crossing factors on shared axes."""
    for factor in crossing:
        shared = tuple(sorted(set(factor.axes) & set(new.axes)))
        ours, theirs = (_along(relations, shape, each, shared) for each in (new, factor))
        if ours is not None and theirs is not None:
            relations.relate(ours, theirs)


def _along(relations: Relations, shape: Sequence[int], factor: Factor, axes: tuple[int, ...]) -> Ids | None:
    """Sum a factor out to some of its axes.

    None when all positions on these axes are alike.
    """
    left = sum_out(relations, Labels(tuple(shape), (factor,)), set(factor.axes) - set(axes))
    return common_refinement(relations, shape, left.factors).over(axes, shape) if left.factors else None


def note_implied(relations: Relations, shape: Sequence[int], wide: Factor, narrow: Sequence[Factor]) -> None:
    """Note that narrow factors imply a wide one.

    A class token is put before a stream of tokens: labels cover token and channel. Then a bias with one value a
    channel is added. From there on units along channels *imply* the wide units.

    A wide unit is implied when no other wide unit has the same narrow units and the same fixed values: whatever
    moves the narrow units then moves the wide one.
    """
    inside = [f for f in narrow if set(f.axes) < set(wide.axes)]
    columns = [f.over(wide.axes, shape) for f in inside]
    follows = [determines(wide.ids, column) for column in columns]
    units = [f for f, follow in zip(inside, follows, strict=True) if follow]
    fixed = [f for f, follow in zip(inside, follows, strict=True) if not follow]
    if any(f.has_units for f in fixed):
        return
    if {axis for f in inside for axis in f.axes} != set(wide.axes):
        return
    followed = [column for column, follow in zip(columns, follows, strict=True) if follow]
    values = [column for column, follow in zip(columns, follows, strict=True) if not follow]
    if count_distinct(*values, *followed) < count_distinct(*values, wide.ids):
        return
    for column in followed:
        relations.relate(wide.ids, column)
    if values:
        relations.relate(wide.ids, -1 - factorize(*values))
    places = {axis: place for place, axis in enumerate(wide.axes)}

    def placed(factors: Sequence[Factor]) -> tuple[tuple[tuple[int, ...], Ids], ...]:
        return tuple((tuple(places[axis] for axis in f.axes), f.ids) for f in factors)

    relations.implied[id(wide.ids)] = Implied(wide.ids, placed(units), placed(fixed))


def without_implied(relations: Relations, labels: Labels) -> Labels:
    """Replace wide factors by implying narrow ones."""
    factors = list(labels.factors)
    for factor in labels.factors:
        implied = relations.implied.get(id(factor.ids))
        if implied is None or not all(_present(factors, f) for f in _placed(factor, implied.fixed)):
            continue
        factors = [f for f in factors if f is not factor]
        factors.extend(f for f in _placed(factor, implied.units) if not _present(factors, f))
    return Labels(labels.shape, tuple(factors))


def _placed(factor: Factor, narrow: Sequence[tuple[tuple[int, ...], Ids]]) -> list[Factor]:
    """Put narrow factors on a wide one's axes."""
    return [Factor(tuple(factor.axes[place] for place in places), ids) for places, ids in narrow]


def _present(factors: Sequence[Factor], wanted: Factor) -> bool:
    """Tell whether a factor is among these."""
    return any(f.axes == wanted.axes and np.array_equal(f.ids, wanted.ids) for f in factors)
