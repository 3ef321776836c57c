"""Lay labels of tensors end to end along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, simplified
from sinkhorn_rebasin.symmetry.labels.numbering import Ids, distinct_values
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.labels.summing import common_refinement


def concatenated(relations: Relations, parts: Sequence[Labels], axis: int) -> Labels:
    """Join labels of tensors end to end along one axis.

    Note:
        - Factors outside the axis that all parts share stay as they are.
        - Where parts differ, the new factor also covers the axis, so that nothing is tied.
        - When two parts hold the same unit, one more factor tells the parts apart.

    >>> parts = [Labels((2,), (Factor((0,), np.array(ids)),)) for ids in ([0, 1], [2, 3])]
    >>> concatenated(Relations(), parts, 0).factors[0].ids.tolist()
    [0, 1, 2, 3]
    """
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    shared: list[Factor] = []
    for factor in (factor for part in parts for factor in part.factors_outside([axis])):
        known = any(_equal(factor, other) for other in shared)
        if not known and all(_has(part, factor) or _may_have(part, factor) for part in parts):
            shared.append(factor)
    factors = [*shared]
    unshared = [
        [f for f in part.factors_outside([axis]) if not any(_equal(f, s) for s in shared)] for part in parts
    ]
    for signature in dict.fromkeys(factor.axes for part in unshared for factor in part):
        alike = [[f for f in part if f.axes == signature] for part in unshared]
        for factors_of_parts in zip_longest(*alike):
            factors.append(_laid(parts, factors_of_parts, tuple(sorted((axis, *signature))), axis))
    along = [_single(relations, part, axis) for part in parts]
    axes = tuple(sorted({axis}.union(*(factor.axes for factor in along if factor is not None))))
    factors.append(_laid(parts, along, axes, axis))
    if _share_units(parts):
        source = np.repeat(np.arange(len(parts)), [part.shape[axis] for part in parts])
        factors.append(Factor((axis,), -1 - source))
    return simplified(shape, factors)


def scattered(relations: Relations, labels: Labels, source: Labels, axis: int, index: Ids) -> Labels:
    """Overwrite positions of one axis by another tensor's labels."""
    if len(index) == labels.shape[axis]:
        return source.taken(axis, np.argsort(index))
    both = concatenated(relations, [labels, source], axis)
    origin = np.arange(labels.shape[axis])
    origin[index] = labels.shape[axis] + np.arange(len(index))
    return both.taken(axis, origin)


def _laid(
    parts: Sequence[Labels], factors: Sequence[Factor | None], axes: tuple[int, ...], axis: int
) -> Factor:
    """Lay factors end to end, fixed values renumbered."""
    blocks, used = [], 0
    for part, factor in zip(parts, factors, strict=True):
        shape = [part.shape[axis] for axis in axes]
        ids = np.full(shape, -1) if factor is None else np.array(factor.over(axes, part.shape))
        values, place = np.unique(ids[ids < 0], return_inverse=True)
        ids[ids < 0] = -1 - used - place.ravel()
        used += len(values)
        blocks.append(ids)
    return Factor(axes, np.concatenate(blocks, axis=axes.index(axis)))


def _equal(first: Factor, second: Factor) -> bool:
    """Tell whether two factors are the same array."""
    return first.axes == second.axes and np.array_equal(first.ids, second.ids)


def _has(part: Labels, factor: Factor) -> bool:
    """Tell whether a part carries a factor."""
    return any(_equal(factor, other) for other in part.factors)


def _may_have(part: Labels, factor: Factor) -> bool:
    """Tell whether fixed values may refine a constant axis."""
    return not factor.has_units and not part.factors_covering(factor.axes)


def _single(relations: Relations, part: Labels, axis: int) -> Factor | None:
    """Refine all factors of a part on one axis."""
    factors = part.factors_covering([axis])
    return common_refinement(relations, part.shape, factors) if factors else None


def _share_units(parts: Sequence[Labels]) -> bool:
    """Tell whether two parts hold the same unit."""
    units = [part.units for part in parts]
    return len(distinct_values(np.concatenate(units))) < sum(len(part) for part in units)
