"""Labels of tensors that meet element by element: positions that meet belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.labels import Factor, Labels, merged, reduced
from sinkhorn_rebasin.symmetry.relations import Ids, Relations


def joined(relations: Relations, labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
    """Labels of an element-wise function of several tensors, broadcast to a shape."""
    result = Labels(tuple(shape))
    for other in labels:
        result = _join(relations, result, other.broadcast(shape))
    return result


def _join(relations: Relations, left: Labels, right: Labels) -> Labels:
    if not left.factors or not right.factors:
        return left if left.factors else right
    factors = list(left.factors)
    for factor in right.factors:
        factors = _add(relations, left.shape, factors, factor)
    return Labels(left.shape, tuple(factors))


def _add(relations: Relations, shape: Sequence[int], factors: list[Factor], new: Factor) -> list[Factor]:
    """Relate a new factor to those it overlaps; return a set of factors that determines all of them."""
    overlapping = [f for f in factors if set(f.axes) & set(new.axes)]
    apart = [f for f in factors if not set(f.axes) & set(new.axes)]
    for factor in overlapping:
        if set(new.axes) <= set(factor.axes):
            wide = new.over(factor.axes, shape)
            if _determines(factor.ids, wide):
                relations.relate(factor.ids, wide)
                return factors
    nested = [f for f in overlapping if set(f.axes) <= set(new.axes)]
    crossing = [f for f in overlapping if not set(f.axes) <= set(new.axes)]
    if all(_determines(new.ids, f.over(new.axes, shape)) for f in nested):
        for factor in nested:
            relations.relate(new.ids, factor.over(new.axes, shape))
        _meet_crossing(relations, shape, crossing, new)
        return [*apart, *crossing, new]
    combined = merged(relations, shape, [*nested, new])
    _meet_crossing(relations, shape, crossing, combined)
    return [*apart, *crossing, combined]


def _meet_crossing(relations: Relations, shape: Sequence[int], crossing: list[Factor], new: Factor) -> None:
    """Factors that overlap without one covering the other agree on the axes they share."""
    for factor in crossing:
        shared = set(factor.axes) & set(new.axes)
        ours = reduced(relations, Labels(tuple(shape), (new,)), set(new.axes) - shared)
        theirs = reduced(relations, Labels(tuple(shape), (factor,)), set(factor.axes) - shared)
        relations.relate(ours.factors[0].ids, theirs.factors[0].ids)


def _determines(first: Ids, second: Ids) -> bool:
    """Whether equal entries of the first array always come with equal entries of the second."""
    _, index, place = np.unique(first.ravel(), return_index=True, return_inverse=True)
    flat = second.ravel()
    return bool((flat[index][place.ravel()] == flat).all())
