"""What a tensor holds after a view of its memory has been written to."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.concatenation import scattered
from sinkhorn_rebasin.symmetry.labels import Labels
from sinkhorn_rebasin.symmetry.numbering import Ids
from sinkhorn_rebasin.symmetry.relations import Relations


def overwritten(
    relations: Relations, tensor: Tensor, labels: Labels, view: Tensor, written: Labels
) -> Labels | None:
    """Labels of a tensor of which a box, ranges of its axes, has been overwritten; None when it is no box."""
    ranges = _ranges(tensor, view)
    if ranges is None:
        return None
    partial = [axis for axis, index in enumerate(ranges) if len(index) < tensor.shape[axis]]
    # The box is laid into a strip of full length along one axis, that into a wider strip, and so on.
    strips = [labels]
    for axis in reversed(partial[1:]):
        strips.append(strips[-1].taken(axis, ranges[axis]))
    for axis in partial:
        written = scattered(relations, strips.pop(), written, axis, ranges[axis])
    return written


def _ranges(tensor: Tensor, view: Tensor) -> list[Ids] | None:
    """Which positions of each axis of a tensor a view of its memory covers, if it is a box of them."""
    if tensor.dim() != view.dim() or 0 in view.shape:
        return None
    start = int(view.storage_offset()) - int(tensor.storage_offset())
    ranges: list[Ids] = [np.zeros(1, dtype=np.int64)] * tensor.dim()
    strides = tensor.stride()
    for axis in sorted(range(tensor.dim()), key=lambda a: strides[a], reverse=True):
        stride, length = strides[axis], view.shape[axis]
        if tensor.shape[axis] == 1 and length == 1:
            continue
        if stride <= 0 or start < 0:
            return None
        first, start = divmod(start, stride)
        step, rest = divmod(view.stride(axis), stride) if length > 1 else (1, 0)
        if rest or step < 1 or first + (length - 1) * step >= tensor.shape[axis]:
            return None
        ranges[axis] = first + step * np.arange(length)
    return None if start else ranges
