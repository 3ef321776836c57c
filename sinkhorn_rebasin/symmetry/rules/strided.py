"""Follow each element of a strided view to its memory."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.networks.shared_memory import element_offsets, memory_offsets
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Factor, simplified
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.registry import rule

# Larger tensors are not followed element by element.
LARGEST_STRIDED = 1 << 24


@rule("as_strided", "as_strided_copy", moves=True)
def as_strided(labelling: Labelling, call: Call) -> Result:
    """Pick elements by their places in memory."""
    tensor = call["self"]
    start = int(tensor.storage_offset() if call["storage_offset"] is None else call["storage_offset"])
    places = memory_offsets(call["size"], call["stride"], start)
    offsets = element_offsets(tensor)
    if max(places.size, offsets.size) > LARGEST_STRIDED or not offsets.size:
        raise NotUnderstoodError("it is too large to be followed element by element")
    element = np.full(max(int(places.max(initial=0)), int(offsets.max())) + 1, -1, dtype=np.int64)
    element[offsets] = np.arange(offsets.size)
    picked = element[places]
    if (picked < 0).any():
        raise NotUnderstoodError("it reads memory beside its tensor")
    labels = labelling.labels(tensor)
    coordinates = np.unravel_index(picked, labels.shape)
    axes = tuple(range(picked.ndim))
    factors = [Factor(axes, f.ids[tuple(coordinates[a] for a in f.axes)]) for f in labels.factors]
    return simplified(picked.shape, factors)
