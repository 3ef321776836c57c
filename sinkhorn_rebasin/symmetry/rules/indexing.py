"""Looking up positions by index: by constants as on the data, by data at the price of a fixed axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, fixed_factor, simplified
from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


def looked_up(labelling: Labelling, labels: Labels, axis: int, index: Tensor, name: str) -> Labels:
    """Pick positions of one axis by an index tensor.

    The axes of the index replace the axis.
    """
    shape = (*labels.shape[:axis], *index.shape, *labels.shape[axis + 1 :])
    if not labelling.knows(index):
        return labels.taken(axis, labelling.constant_values(index).reshape(-1).astype(np.int64)).reshaped(
            shape
        )
    looked_in = with_positions_fixed(
        labelling,
        labels,
        [axis],
        (*labels.shape[:axis], 1, *labels.shape[axis + 1 :]),
        f"{name} looks up its positions by data",
    )
    lead = (*labels.shape[:axis], *[1] * index.dim(), *labels.shape[axis + 1 :])
    places = labelling.labels(index).reshaped((*index.shape, *[1] * (len(labels.shape) - axis - 1)))
    # What is found depends on its place only through the index, whose labels it takes over.
    return labelling.join([looked_in.reshaped(lead), places], shape)


@rule("embedding")
def embedding(labelling: Labelling, call: Call) -> Result:
    """Fix the rows of a table, and keep its columns."""
    return looked_up(labelling, labelling.labels(call["weight"]), 0, call["indices"], call.name)


@rule("index_select")
def index_select(labelling: Labelling, call: Call) -> Result:
    """Pick positions of one axis by an index."""
    labels = labelling.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    picked = looked_up(labelling, labels, axis, call["index"], call.name)
    return picked.reshaped(tuple(call.output.shape))


@rule("index", "_unsafe_index")
def index(labelling: Labelling, call: Call) -> Result:
    """Index several axes together by broadcast tensors."""
    labels = labelling.labels(call["self"])
    indices = list(call["indices"])
    axes = [axis for axis, item in enumerate(indices) if item is not None]
    items = [indices[axis] for axis in axes]
    if any(
        item.dtype.is_floating_point or str(item.dtype) in ("torch.bool", "torch.uint8") for item in items
    ):
        return _masked(labelling, call, labels, axes, items)
    lead = np.broadcast_shapes(*(tuple(item.shape) for item in items))
    if any(labelling.knows(item) for item in items):
        return _indexed_by_data(labelling, call, labels, axes, items)
    places = [np.broadcast_to(labelling.constant_values(item), lead) for item in items]
    return _picked(labels, axes, places, lead)


def _picked(labels: Labels, axes: Sequence[int], places: Sequence[Ids], lead: tuple[int, ...]) -> Labels:
    """Run the indexing on the label arrays."""
    first, kept = arrangement(labels, axes, len(lead))
    shape = _result_shape(labels, axes, lead)
    factors = []
    for factor in labels.factors:
        touched = [axis for axis in axes if axis in factor.axes]
        if not touched:
            factors.append(Factor(tuple(kept[axis] for axis in factor.axes), factor.ids))
            continue
        rest = [axis for axis in factor.axes if axis not in axes]
        moved = np.moveaxis(factor.ids, [factor.axes.index(a) for a in touched], range(len(touched)))
        picked = moved[tuple(places[axes.index(axis)] for axis in touched)]
        new_axes = [*range(first, first + len(lead)), *(kept[axis] for axis in rest)]
        order = np.argsort(new_axes)
        factors.append(Factor(tuple(sorted(new_axes)), picked.transpose(order)))
    return simplified(shape, factors)


def arrangement(labels: Labels, axes: Sequence[int], lead: int) -> tuple[int, dict[int, int]]:
    """Find where the index's axes and all others go.

    Note:
        The index's axes stay in place when the indexed axes are adjacent, and go to the front otherwise.
    """
    adjacent = list(axes) == list(range(axes[0], axes[0] + len(axes)))
    first = axes[0] if adjacent else 0
    others = [axis for axis in range(len(labels.shape)) if axis not in axes]
    return first, {axis: place if place < first else place + lead for place, axis in enumerate(others)}


def _result_shape(labels: Labels, axes: Sequence[int], lead: tuple[int, ...]) -> tuple[int, ...]:
    """Compute the shape after indexing."""
    first, kept = arrangement(labels, axes, len(lead))
    shape = [0] * (len(kept) + len(lead))
    shape[first : first + len(lead)] = lead
    for axis, place in kept.items():
        shape[place] = labels.shape[axis]
    return tuple(shape)


def _indexed_by_data(
    labelling: Labelling, call: Call, labels: Labels, axes: Sequence[int], items: Sequence[Tensor]
) -> Labels:
    """Label what data picks by the labels of the indices."""
    lead = np.broadcast_shapes(*(tuple(item.shape) for item in items))
    picked = _found(labelling, labels, axes, lead, f"{call.name} looks up its positions by data")
    first, _ = arrangement(labels, axes, len(lead))
    behind = [1] * (len(picked.shape) - first - len(lead))
    places = [labelling.labels(item).reshaped((*item.shape, *behind)) for item in items]
    return labelling.join([picked, *places], picked.shape)


def _found(
    labelling: Labelling, labels: Labels, axes: Sequence[int], lead: tuple[int, ...], reason: str
) -> Labels:
    """Fix axes that were looked up, without labels for these."""
    single = [1 if axis in axes else n for axis, n in enumerate(labels.shape)]
    left = with_positions_fixed(labelling, labels, axes, single, reason)
    _, kept = arrangement(labels, axes, len(lead))
    factors = [Factor(tuple(kept[a] for a in f.axes), f.ids) for f in left.factors]
    return Labels(_result_shape(labels, axes, lead), tuple(factors))


def _masked(
    labelling: Labelling, call: Call, labels: Labels, axes: Sequence[int], items: Sequence[Tensor]
) -> Labels:
    """Pick positions by a mask, along one fixed axis."""
    if len(items) != 1:
        raise NotUnderstoodError("it mixes masks with other indices")
    masked = list(range(axes[0], axes[0] + items[0].dim()))
    reason = f"{call.name} picks its positions by a mask"
    labelling.fix(labelling.labels(items[0]), reason)
    length = call.output.shape[axes[0]]
    picked = _found(labelling, labels, masked, (length,), reason)
    fresh = [fixed_factor(axes[0], length)] if length > 1 else []
    return Labels(picked.shape, (*picked.factors, *fresh))


@rule("gather")
def gather(labelling: Labelling, call: Call) -> Result:
    """Look up one axis, joined with the index."""
    labels, axis = labelling.labels(call["self"]), axis_of(call["dim"], call["self"].dim())
    if tuple(n for a, n in enumerate(labels.shape) if a != axis) != tuple(
        n for a, n in enumerate(call["index"].shape) if a != axis
    ):
        raise NotUnderstoodError("its index is smaller than the tensor")
    reason = f"{call.name} looks up its positions by data"
    shape = tuple(call.output.shape)
    fixed = with_positions_fixed(labelling, labels, [axis], shape, reason)
    return labelling.join([fixed, labelling.labels(call["index"])], shape)
