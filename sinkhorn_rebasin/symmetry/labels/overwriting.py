"""Follow writes through a view to the tensor under it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels.concatenating import scattered
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.relations import Relations


def overwritten(
    relations: Relations, tensor: Tensor, labels: Labels, view: Tensor, written: Labels
) -> Labels | None:
    """Label a tensor after a box is written.

    A box is a range of positions on every axis. None when the view is no box.
    """
    placed = _box(tensor, view)
    if placed is None:
        return None
    shape, ranges = placed
    written = written.reshaped(shape)
    partial = [axis for axis, index in enumerate(ranges) if len(index) < tensor.shape[axis]]
    # The box is laid into a strip of full length along one axis, that into a wider strip, and so on.
    strips = [labels]
    for axis in reversed(partial[1:]):
        strips.append(strips[-1].taken(axis, ranges[axis]))
    for axis in partial:
        written = scattered(relations, strips.pop(), written, axis, ranges[axis])
    return written


def _box(tensor: Tensor, view: Tensor) -> tuple[tuple[int, ...], list[Ids]] | None:
    """Find the box under a view."""
    for kept in combinations(range(tensor.dim()), view.dim()):
        shape, strides = [1] * tensor.dim(), [0] * tensor.dim()
        for axis, length, stride in zip(kept, view.shape, view.stride(), strict=True):
            shape[axis], strides[axis] = length, stride
        ranges = _ranges(tensor, int(view.storage_offset()), shape, strides)
        if ranges is not None:
            return tuple(shape), ranges
    return None


def _ranges(tensor: Tensor, offset: int, shape: Sequence[int], steps: Sequence[int]) -> list[Ids] | None:
    """Find the covered positions of each axis."""
    if 0 in shape:
        return None
    start = offset - int(tensor.storage_offset())
    ranges: list[Ids] = [np.zeros(1, dtype=np.int64)] * tensor.dim()
    strides = tensor.stride()
    for axis in sorted(range(tensor.dim()), key=lambda a: strides[a], reverse=True):
        stride, length = strides[axis], shape[axis]
        if tensor.shape[axis] == 1 and length == 1:
            continue
        if stride <= 0 or start < 0:
            return None
        first, start = divmod(start, stride)
        step, rest = divmod(steps[axis], stride) if length > 1 else (1, 0)
        if rest or step < 1 or first + (length - 1) * step >= tensor.shape[axis]:
            return None
        ranges[axis] = first + step * np.arange(length)
    return None if start else ranges
