"""Labels of tensors laid end to end along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.join import joined
from sinkhorn_rebasin.symmetry.labels import Factor, Labels, merged, simplified
from sinkhorn_rebasin.symmetry.relations import Ids, Relations

# Fixed values of different tensors must stay different; this is more than any axis is long.
_VALUES_PER_TENSOR = 1 << 40


def concatenated(relations: Relations, parts: Sequence[Labels], axis: int) -> Labels:
    """Labels of several tensors laid end to end along one axis.

    Along the other axes their positions meet. Along this one each part keeps its own labels; when two parts hold
    the same unit, a further factor says which part a position came from.
    """
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    across = [Labels(_with_length(part.shape, axis, 1), tuple(part.off([axis]))) for part in parts]
    others = joined(relations, across, _with_length(shape, axis, 1))
    along = [_single(relations, part, axis) for part in parts]
    axes = tuple(sorted({axis}.union(*(factor.axes for factor in along if factor is not None))))
    blocks = [
        _block(part, factor, axes, i) for i, (part, factor) in enumerate(zip(parts, along, strict=True))
    ]
    place = axes.index(axis)
    factors = [*others.factors, Factor(axes, np.concatenate(blocks, axis=place))]
    if _share_units(blocks):
        source = np.repeat(np.arange(len(parts)), [part.shape[axis] for part in parts])
        factors.append(Factor((axis,), -1 - source))
    return simplified(shape, factors)


def _with_length(shape: Sequence[int], axis: int, length: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _single(relations: Relations, part: Labels, axis: int) -> Factor | None:
    factors = part.on([axis])
    return merged(relations, part.shape, factors) if factors else None


def _block(part: Labels, factor: Factor | None, axes: tuple[int, ...], index: int) -> Ids:
    base = -1 - index * _VALUES_PER_TENSOR
    if factor is None:
        return np.full([part.shape[axis] for axis in axes], base, dtype=np.int64)
    ids = factor.over(axes, part.shape)
    return np.where(ids < 0, ids + base, ids)


def _share_units(blocks: Sequence[Ids]) -> bool:
    units = [np.unique(block[block >= 0]) for block in blocks]
    return len(np.unique(np.concatenate(units))) < sum(len(part) for part in units)
