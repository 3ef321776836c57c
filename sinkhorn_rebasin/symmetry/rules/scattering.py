"""Write to positions by index: fix those axes, join the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.indexing import arrangement
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


def without(labelling: Labelling, labels: Labels, axes: Sequence[int], reason: str) -> Labels:
    """Fix axes, and give each length 1."""
    shape = [1 if axis in axes else length for axis, length in enumerate(labels.shape)]
    return with_positions_fixed(labelling, labels, axes, shape, reason)


@rule("index_add", "index_copy", "index_fill", "index_reduce")
def write_along(labelling: Labelling, call: Call) -> Result:
    """Write to positions of one axis; join the others."""
    labels, source = labelling.labels(call["self"]), call.get("source", call.get("value"))
    axis = axis_of(call["dim"], len(labels.shape))
    reason = f"{call.name} writes to positions by index"
    labelling.fix(labelling.labels(call["index"]), reason)
    parts = [with_positions_fixed(labelling, labels, [axis], labels.shape, reason)]
    if isinstance(source, Tensor):
        written = labelling.labels(source)
        parts.append(without(labelling, written, [axis], reason) if written.shape else written)
    return labelling.join(parts, labels.shape)


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(labelling: Labelling, call: Call) -> Result:
    """Write along one axis by an index everywhere.

    Note:
        An index that was expanded along channels leaves the channels free.
    """
    labels, index, source = labelling.labels(call["self"]), labelling.labels(call["index"]), call.get("src")
    axis = axis_of(call["dim"], len(labels.shape))
    others = [a for a in range(len(labels.shape)) if a != axis]
    if any(labels.shape[a] != index.shape[a] for a in others):
        raise NotUnderstoodError("its index is smaller than the tensor")
    reason = f"{call.name} writes to positions by index"
    parts = [index]
    if source is not None:
        written = labelling.labels(source)
        for other in others:
            if written.shape[other] > index.shape[other]:
                written = written.taken(other, np.arange(index.shape[other]))
        parts.append(written)
    if not labels.shape:
        return labelling.join([labels, *parts], labels.shape)
    fixed = with_positions_fixed(labelling, labels, [axis], labels.shape, reason)
    return labelling.join(
        [fixed, *(without(labelling, part, [axis], reason) for part in parts)], labels.shape
    )


@rule("masked_scatter")
def masked_scatter(labelling: Labelling, call: Call) -> Result:
    """Write elements to positions that a mask picks.

    Note:
        Last axes along which the mask is constant are joined.
    """
    shape = tuple(call.output.shape)
    labels, mask = (labelling.labels(call[name]).broadcast(shape) for name in ("self", "mask"))
    first = 1 + max((axis for factor in mask.factors for axis in factor.axes), default=-1)
    whole = shape[first:]
    size = math.prod(whole)
    if not size or call["source"].numel() % size:
        raise NotUnderstoodError("it writes to parts of rows")
    source = labelling.labels(call["source"]).reshaped((call["source"].numel() // size, *whole))
    reason = f"{call.name} picks its positions by a mask"
    labelling.fix(mask, reason)
    fixed = with_positions_fixed(labelling, labels, range(first), shape, reason)
    return labelling.join([fixed, without(labelling, source, [0], reason).reshaped(whole)], shape)


@rule("index_put", "_unsafe_index_put")
def index_put(labelling: Labelling, call: Call) -> Result:
    """Write to positions of some axes; join the others."""
    labels, items = labelling.labels(call["self"]), list(call["indices"])
    given = [(place, item) for place, item in enumerate(items) if item is not None]
    masks = [(place, item) for place, item in given if str(item.dtype) in ("torch.bool", "torch.uint8")]
    if masks and len(given) > 1:
        raise NotUnderstoodError("it mixes masks with other indices")
    reason = f"{call.name} writes to positions by index"
    for _, item in given:
        labelling.fix(labelling.labels(item), reason)
    if masks:
        axes = [masks[0][0] + step for step in range(masks[0][1].dim())]
        lead = [1]
    else:
        axes = [place for place, _ in given]
        lead = list(np.broadcast_shapes(*(tuple(item.shape) for _, item in given)))
    fixed = with_positions_fixed(labelling, labels, axes, labels.shape, reason)
    written = _written(labelling, labelling.labels(call["values"]), labels, axes, lead, reason)
    return labelling.join([fixed, written], labels.shape)


def _written(
    labelling: Labelling,
    values: Labels,
    labels: Labels,
    axes: Sequence[int],
    lead: Sequence[int],
    reason: str,
) -> Labels:
    """Align written values with the tensor written to."""
    first, kept = arrangement(labels, axes, len(lead))
    rank = len(kept) + len(lead)
    values = values.reshaped((*[1] * (rank - len(values.shape)), *values.shape))
    values = without(labelling, values, range(first, first + len(lead)), reason)
    return values.reshaped([values.shape[kept[a]] if a in kept else 1 for a in range(len(labels.shape))])
