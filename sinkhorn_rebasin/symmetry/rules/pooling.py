"""Mix neighboring positions of spatial axes, all channels alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.numbering import factorize_by_appearance, row_hashes
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import common_refinement, overlapping
from sinkhorn_rebasin.symmetry.rules.registry import rule

# More kinds of positions than this are not told apart: what lies on them is fixed.
MOST_KINDS_OF_POSITIONS = 256


def with_positions_fixed(
    labelling: Labelling, labels: Labels, axes: Sequence[int], shape: Sequence[int], reason: str
) -> Labels:
    """Fix axes whose neighbors are mixed, in a new length.

    Note:
        - A factor on these axes alone is fixed.
        - A factor that also covers other axes becomes one of units on those, related position by position.
    """
    gone = set(axes)
    kept = labels.factors_outside(gone)
    for factor in labels.factors_covering(gone):
        if set(factor.axes) <= gone:
            labelling.relations.fix(factor.ids, reason)
    partial = [factor for factor in labels.factors_covering(gone) if not set(factor.axes) <= gone]
    for cluster in overlapping(partial, sorted(gone)):
        whole = common_refinement(labelling.relations, labels.shape, cluster)
        kept.append(_read_by_position(labelling, whole, gone, reason))
    fresh = [fixed_factor(axis, shape[axis]) for axis in axes if shape[axis] > 1]
    return Labels(tuple(shape), (*kept, *fresh))


def _read_by_position(labelling: Labelling, factor: Factor, gone: set[int], reason: str) -> Factor:
    """Make a unit of each row, related position by position."""
    places = [place for place, axis in enumerate(factor.axes) if axis not in gone]
    kept = tuple(factor.axes[place] for place in places)
    rows = np.moveaxis(factor.ids, places, range(len(places)))
    lengths = rows.shape[: len(places)]
    rows = rows.reshape(math.prod(lengths), -1)
    columns = rows[:, factorize_by_appearance(row_hashes(rows.T))[0]]
    first, place = factorize_by_appearance(row_hashes(columns))
    if columns.shape[1] == 1:
        return Factor(kept, columns.reshape(lengths))
    if not factor.has_units:
        return Factor(kept, (-1 - place).reshape(lengths))
    if columns.shape[1] > MOST_KINDS_OF_POSITIONS:
        labelling.relations.fix(factor.ids, reason)
    units = labelling.relations.new_units((len(first),))
    for column in columns[first].T[:MOST_KINDS_OF_POSITIONS]:
        labelling.relations.relate(units, column)
    return Factor(kept, units[place].reshape(lengths))


@rule(
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "mkldnn_max_pool2d",
    "mkldnn_max_pool3d",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_linear1d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_trilinear3d",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def spatial(labelling: Labelling, call: Call) -> Result:
    """Pool, interpolate or pad the last axes."""
    tensor = call.tensors[0]
    count = next(int(digit) for digit in "123" if f"{digit}d" in call.name)
    axes = [tensor.dim() - count + step for step in range(count) if not _untouched(call, step, count)]
    outputs = call.outputs if isinstance(call.outputs, list | tuple) else [call.outputs]
    reason = f"{call.name} mixes its neighbours"
    labels = with_positions_fixed(labelling, labelling.labels(tensor), axes, outputs[0].shape, reason)
    return [labels for _ in outputs]


def _untouched(call: Call, step: int, count: int) -> bool:
    """Tell whether a window leaves an axis as it is."""
    kernel = call.get("kernel_size")
    if not kernel:
        return False
    settings = [(kernel, 1), (call.get("stride") or kernel, 1), (call.get("padding", [0]), 0)]
    return all(values[step % len(values)] == neutral for values, neutral in settings)


@rule("max_unpool2d", "max_unpool3d")
def unpool(labelling: Labelling, call: Call) -> Result:
    """Put maxima back to their places."""
    tensor = call["self"]
    axes = range(tensor.dim() - int(call.name[-2]), tensor.dim())
    labels = labelling.join([labelling.labels(tensor), labelling.labels(call["indices"])], tensor.shape)
    return with_positions_fixed(labelling, labels, axes, call.output.shape, f"{call.name} moves by data")


@rule("grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(labelling: Labelling, call: Call) -> Result:
    """Read every channel at the places of a grid."""
    reason = f"{call.name} reads the places that its grid tells"
    samples, rank = call["input"].shape[0], call["input"].dim()
    places = (samples, 1, *call.output.shape[2:])
    # Where the grid points to in each of its directions, at each place of the output.
    grid = with_positions_fixed(
        labelling, labelling.labels(call["grid"]), [rank - 1], (*call["grid"].shape[:-1], 1), reason
    )
    grid = grid.reshaped(places)
    image = with_positions_fixed(
        labelling,
        labelling.labels(call["input"]),
        range(2, rank),
        (*call["input"].shape[:2], *[1] * (rank - 2)),
        reason,
    )
    return labelling.join([image, grid], call.output.shape)


@rule("affine_grid_generator")
def affine_grid(labelling: Labelling, call: Call) -> Result:
    """Map a regular grid by each sample's affine map."""
    reason = f"{call.name} multiplies with fixed places"
    theta, shape = call["theta"], tuple(call.output.shape)
    rows = with_positions_fixed(labelling, labelling.labels(theta), [2], (*theta.shape[:2], 1), reason)
    rows = rows.reshaped((shape[0], *[1] * (len(shape) - 2), shape[-1]))
    places = [fixed_factor(axis, shape[axis]) for axis in range(1, len(shape) - 1) if shape[axis] > 1]
    return labelling.join([rows, Labels(shape, tuple(places))], shape)
