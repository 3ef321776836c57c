"""Lay sliding windows out as axes, and add windows up."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.movement import padded
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule
from sinkhorn_rebasin.symmetry.rules.shuffling import reordered


@rule("unfold", "unfold_copy", moves=True)
def unfold(labelling: Labelling, call: Call) -> Result:
    """Lay windows of one axis out last."""
    labels = labelling.labels(call["self"])
    axis, size = axis_of(call["dimension"], len(labels.shape)), call["size"]
    index = np.arange(call.output.shape[axis])[:, None] * call["step"] + np.arange(size)
    labels = _windows(labels, axis, index)
    rank = len(labels.shape)
    return reordered(labels, [*(a for a in range(rank) if a != axis + 1), axis + 1])


@rule("im2col", moves=True)
def image_to_columns(labelling: Labelling, call: Call) -> Result:
    """Lay windows of an image out as columns."""
    labels = labelling.labels(call["self"])
    first = len(labels.shape) - 2
    for step in (1, 0):
        axis = first + step
        kernel, dilation = call["kernel_size"][step], call["dilation"][step]
        padding, stride = call["padding"][step], call["stride"][step]
        labels = padded(labelling, labels, axis, padding, padding)
        count = (labels.shape[axis] - dilation * (kernel - 1) - 1) // stride + 1
        index = np.arange(kernel)[:, None] * dilation + np.arange(count) * stride
        labels = _windows(labels, axis, index)
    order = [*range(first), first, first + 2, first + 1, first + 3]
    return reordered(labels, order).reshaped(tuple(call.output.shape))


@rule("col2im", moves=True)
def columns_to_image(labelling: Labelling, call: Call) -> Result:
    """Add up windows; keep channels and fix positions."""
    *lead, columns, windows = call["self"].shape
    window = call["kernel_size"][0] * call["kernel_size"][1]
    labels = labelling.labels(call["self"]).reshaped((*lead, columns // window, window, windows))
    axes = (len(lead) + 1, len(lead) + 2)
    shape = tuple(call.output.shape)
    return with_positions_fixed(labelling, labels, axes, shape, f"{call.name} adds up windows that overlap")


def _windows(labels: Labels, axis: int, index: Ids) -> Labels:
    """Replace one axis by two that look it up."""
    shape = (*labels.shape[:axis], *index.shape, *labels.shape[axis + 1 :])
    moved = {a: a if a < axis else a + 1 for a in range(len(labels.shape))}
    factors = []
    for factor in labels.factors:
        axes = tuple(moved[a] for a in factor.axes if a != axis)
        if axis not in factor.axes:
            factors.append(Factor(axes, factor.ids))
        elif len(factor.axes) == 1 and not factor.has_units and not _shares(labels, factor, axis):
            factors.extend(
                fixed_factor(axis + k, length) for k, length in enumerate(index.shape) if length > 1
            )
        else:
            place = factor.axes.index(axis)
            wide = tuple(sorted((*axes, axis, axis + 1)))
            factors.append(Factor(wide, factor.ids.take(index, axis=place)))
    return Labels(shape, tuple(factors))


def _shares(labels: Labels, factor: Factor, axis: int) -> bool:
    """Tell whether units share the fixed axis."""
    return any(other is not factor and other.has_units for other in labels.factors_covering([axis]))
