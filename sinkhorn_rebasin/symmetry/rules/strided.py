"""Views by strides: each element is followed to its place in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels import Factor, simplified
from sinkhorn_rebasin.symmetry.numbering import Ids
from sinkhorn_rebasin.symmetry.rules.registry import Call, NotUnderstoodError, Result, rule

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.trace import Tape

# Larger tensors are not followed element by element.
LARGEST_STRIDED = 1 << 24


@rule("as_strided", "as_strided_copy")
def as_strided(tape: Tape, call: Call) -> Result:
    """Elements picked by their places in memory."""
    tensor = call["self"]
    start = int(tensor.storage_offset() if call["storage_offset"] is None else call["storage_offset"])
    places = memory_offsets(call["size"], call["stride"], start)
    own = element_offsets(tensor)
    if max(places.size, own.size) > LARGEST_STRIDED or not own.size:
        raise NotUnderstoodError("it is too large to be followed element by element")
    element = np.full(max(int(places.max(initial=0)), int(own.max())) + 1, -1, dtype=np.int64)
    element[own] = np.arange(own.size)
    picked = element[places]
    if (picked < 0).any():
        raise NotUnderstoodError("it reads memory beside its tensor")
    labels = tape.labels(tensor)
    coordinates = np.unravel_index(picked, labels.shape)
    axes = tuple(range(picked.ndim))
    factors = [Factor(axes, f.ids[tuple(coordinates[a] for a in f.axes)]) for f in labels.factors]
    return simplified(picked.shape, factors)


def element_offsets(tensor: Tensor) -> Ids:
    """Places in memory of a tensor's elements, in their order."""
    return memory_offsets(tensor.shape, tensor.stride(), int(tensor.storage_offset())).ravel()


def memory_offsets(shape: Sequence[int], strides: Sequence[int], start: int) -> Ids:
    """Place in memory of every element of a strided view."""
    places = np.full(tuple(shape), start, dtype=np.int64)
    for axis, stride in enumerate(strides):
        places += (np.arange(shape[axis]) * stride).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    return places
