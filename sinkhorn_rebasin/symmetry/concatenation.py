"""Labels of tensors laid end to end along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.labels import Factor, Labels, merged, simplified
from sinkhorn_rebasin.symmetry.numbering import Ids
from sinkhorn_rebasin.symmetry.relations import Relations

# Fixed values of different tensors must stay different; this is more than any axis is long.
_VALUES_PER_TENSOR = 1 << 40


def concatenated(relations: Relations, parts: Sequence[Labels], axis: int) -> Labels:
    """Labels of several tensors laid end to end along one axis.

    What all parts share along the other axes stays as it is; where they differ there, the new factor also covers
    the axis, so that each part keeps its own units and nothing is tied. When two parts hold the same unit, a
    further factor says which part a position came from.
    """
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    shared = [factor for factor in parts[0].off([axis]) if all(_has(part, factor) for part in parts)]
    factors = [*shared]
    own = [[f for f in part.off([axis]) if not any(_equal(f, s) for s in shared)] for part in parts]
    for signature in dict.fromkeys(factor.axes for part in own for factor in part):
        chosen = [next((f for f in part if f.axes == signature), None) for part in own]
        factors.append(_laid(parts, chosen, tuple(sorted((axis, *signature))), axis))
    along = [_single(relations, part, axis) for part in parts]
    axes = tuple(sorted({axis}.union(*(factor.axes for factor in along if factor is not None))))
    factors.append(_laid(parts, along, axes, axis))
    if _share_units(parts):
        source = np.repeat(np.arange(len(parts)), [part.shape[axis] for part in parts])
        factors.append(Factor((axis,), -1 - source))
    return simplified(shape, factors)


def _laid(
    parts: Sequence[Labels], chosen: Sequence[Factor | None], axes: tuple[int, ...], axis: int
) -> Factor:
    blocks = [
        _block(part, factor, axes, i) for i, (part, factor) in enumerate(zip(parts, chosen, strict=True))
    ]
    return Factor(axes, np.concatenate(blocks, axis=axes.index(axis)))


def _equal(first: Factor, second: Factor) -> bool:
    return first.axes == second.axes and np.array_equal(first.ids, second.ids)


def _has(part: Labels, factor: Factor) -> bool:
    return any(_equal(factor, other) for other in part.factors)


def _single(relations: Relations, part: Labels, axis: int) -> Factor | None:
    factors = part.on([axis])
    return merged(relations, part.shape, factors) if factors else None


def _block(part: Labels, factor: Factor | None, axes: tuple[int, ...], index: int) -> Ids:
    base = -1 - index * _VALUES_PER_TENSOR
    if factor is None:
        return np.full([part.shape[axis] for axis in axes], base, dtype=np.int64)
    ids = factor.over(axes, part.shape)
    return np.where(ids < 0, ids + base, ids)


def _share_units(parts: Sequence[Labels]) -> bool:
    units = [part.units for part in parts]
    return len(np.unique(np.concatenate(units))) < sum(len(part) for part in units)
