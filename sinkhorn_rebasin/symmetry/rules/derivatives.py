"""Gradients that a forward takes of itself: what the operation relates, its gradient relates as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.concatenating import concatenated, scattered
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.convolution import kernel_labels
from sinkhorn_rebasin.symmetry.rules.matrix_products import contract
from sinkhorn_rebasin.symmetry.rules.normalization import with_channel_tensors
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.reduction import with_statistics
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule
from sinkhorn_rebasin.symmetry.rules.scattering import without


def _asked_for(call: Call, gradients: Sequence[Labels]) -> list[Labels]:
    """Keep labels of gradients that were computed."""
    return [
        labels for labels, output in zip(gradients, call.outputs, strict=True) if isinstance(output, Tensor)
    ]


@rule("_log_softmax_backward_data", "_softmax_backward_data")
def softmax(labelling: Labelling, call: Call) -> Result:
    """Sum symmetrically over the axis; join every position."""
    shape = tuple(call.output.shape)
    both = labelling.join([labelling.labels(call["grad_output"]), labelling.labels(call["output"])], shape)
    return with_statistics(labelling, both, [axis_of(call["dim"], len(shape))])


@rule("glu_backward")
def gated(labelling: Labelling, call: Call) -> Result:
    """Join each half with the other, and their gradient."""
    labels, gradient = labelling.labels(call["self"]), labelling.labels(call["grad_output"])
    axis = axis_of(call["dim"], len(labels.shape))
    middle = labels.shape[axis] // 2
    halves = [labels.taken(axis, np.arange(middle) + start) for start in (0, middle)]
    both = labelling.join([gradient, *halves], gradient.shape)
    return concatenated(labelling.relations, [both, both], axis)


@rule("_fused_rms_norm_backward", "native_layer_norm_backward")
def layer_norm(labelling: Labelling, call: Call) -> Result:
    """Sum over the last axes, for weights over others."""
    labels = labelling.labels(call["input"])
    first = len(labels.shape) - len(call["normalized_shape"])
    axes = tuple(range(first, len(labels.shape)))
    given = [
        labelling.labels(call[name]) for name in ("grad_out", "mean", "rstd") if call.get(name) is not None
    ]
    met = labelling.join([labels, *given], labels.shape)
    weighted = with_channel_tensors(labelling, met, [call.get("weight")], axes)
    gradient = with_statistics(labelling, weighted, list(axes))
    summed = sum_out(labelling.relations, met, range(first)).reshaped(labels.shape[first:])
    return _asked_for(call, [gradient, *[summed] * (len(call.outputs) - 1)])


@rule("native_batch_norm_backward")
def batch_norm(labelling: Labelling, call: Call) -> Result:
    """Sum over batch and positions, channel by channel."""
    names = ("running_mean", "running_var", "save_mean", "save_invstd")
    statistics = [call[name] for name in names if call[name] is not None and call[name].numel()]
    labels = labelling.labels(call["input"])
    met = labelling.join([labels, labelling.labels(call["grad_out"])], labels.shape)
    met = with_channel_tensors(labelling, met, statistics, (1,))
    others = [axis for axis in range(len(labels.shape)) if axis != 1]
    gradient = with_channel_tensors(labelling, met, [call["weight"]], (1,))
    if call["train"]:
        gradient = with_statistics(labelling, gradient, others)
    summed = sum_out(labelling.relations, met, others).reshaped((labels.shape[1],))
    return _asked_for(call, [gradient, summed, summed])


@rule("native_group_norm_backward")
def group_norm(labelling: Labelling, call: Call) -> Result:
    """Sum over each group of channels."""
    shape, groups = tuple(call["input"].shape), call["group"]
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    apart = (shape[0], groups, *[1] * (len(split) - 2))
    met = labelling.join(
        [labelling.labels(call[name]).reshaped(shape) for name in ("input", "grad_out")], shape
    )
    moments = [labelling.labels(call[name]).reshaped(apart) for name in ("mean", "rstd")]
    met = labelling.join([met.reshaped(split), *moments], split).reshaped(shape)
    weighted = with_channel_tensors(labelling, met, [call["weight"]], (1,))
    gradient = with_statistics(labelling, weighted.reshaped(split), list(range(2, len(split)))).reshaped(
        shape
    )
    others = [axis for axis in range(len(shape)) if axis != 1]
    summed = sum_out(labelling.relations, met, others).reshaped((shape[1],))
    return _asked_for(call, [gradient, summed, summed])


@rule("convolution_backward")
def convolution(labelling: Labelling, call: Call) -> Result:
    """Fix positions; join channels as the convolution does."""
    data, weight, groups = call["input"], call["weight"], call["groups"]
    reason = "position that a convolution slides over"
    kernel = kernel_labels(labelling, weight, groups, call["transposed"])
    axes = ["g", "i", "o"] if call["transposed"] else ["g", "o", "i"]
    batch, _, *positions = data.shape
    names = [f"s{axis}" for axis in range(len(positions))]
    spatial = range(2, data.dim())

    def split(tensor: Tensor, lengths: Sequence[int]) -> Labels:
        """Split the channels of a tensor into groups."""
        shape = (*tensor.shape[:2], *lengths)
        labels = with_positions_fixed(labelling, labelling.labels(tensor), spatial, shape, reason)
        return labels.reshaped((batch, groups, tensor.shape[1] // groups, *lengths))

    arriving = split(call["grad_output"], positions)
    to_data = contract(labelling, arriving, ["b", "g", "o", *names], kernel, axes, ["b", "g", "i", *names])
    single = [1] * len(positions)
    outputs, inputs = (split(call[name], single) for name in ("grad_output", "input"))
    outputs, inputs = (labels.reshaped(labels.shape[:3]) for labels in (outputs, inputs))
    to_weight = contract(labelling, outputs, ["b", "g", "o"], inputs, ["b", "g", "i"], axes)
    to_weight = to_weight.reshaped((*weight.shape[:2], *single))
    window = [fixed_factor(axis, weight.shape[axis]) for axis in spatial if weight.shape[axis] > 1]
    to_weight = Labels(tuple(weight.shape), (*to_weight.factors, *window))
    summed = sum_out(labelling.relations, labelling.labels(call["grad_output"]), [0, *spatial])
    gradients = [
        to_data.reshaped(tuple(data.shape)),
        to_weight,
        summed.reshaped((call["grad_output"].shape[1],)),
    ]
    return _asked_for(call, gradients)


@rule("embedding_dense_backward")
def embedding(labelling: Labelling, call: Call) -> Result:
    """Add up gradients at the rows looked up."""
    labels, reason = labelling.labels(call["grad_output"]), f"{call.name} adds up rows by data"
    labelling.fix(labelling.labels(call["indices"]), reason)
    last = len(labels.shape) - 1
    rows, columns = call.output.shape
    kept = without(labelling, labels, range(last), reason).reshaped((1, columns))
    return with_positions_fixed(labelling, kept, [0], (rows, columns), reason)


@rule("unfold_backward")
def windows(labelling: Labelling, call: Call) -> Result:
    """Add up windows where they overlap."""
    labels, shape = labelling.labels(call["grad_in"]), tuple(call["input_sizes"])
    axis, last = axis_of(call["dim"], len(shape)), len(labels.shape) - 1
    reason = f"{call.name} adds up windows that overlap"
    fixed = with_positions_fixed(labelling, labels, [axis, last], (*shape, 1), reason)
    return fixed.reshaped(shape)


@rule("slice_backward")
def piece(labelling: Labelling, call: Call) -> Result:
    """Put a gradient at its range, zeros around it."""
    shape = tuple(call["input_sizes"])
    axis = axis_of(call["dim"], len(shape))
    index = np.arange(shape[axis])[slice(call["start"], call["end"], call["step"])]
    return scattered(labelling.relations, Labels(shape), labelling.labels(call["grad_output"]), axis, index)


@rule("select_backward")
def single_position(labelling: Labelling, call: Call) -> Result:
    """Put a gradient at its position, zeros around it."""
    shape, index = tuple(call["input_sizes"]), call["index"]
    axis = axis_of(call["dim"], len(shape))
    source = labelling.labels(call["grad_output"]).reshaped((*shape[:axis], 1, *shape[axis + 1 :]))
    return scattered(labelling.relations, Labels(shape), source, axis, np.array([index % shape[axis]]))


@rule(
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d_backward",
    "avg_pool2d_backward",
    "avg_pool3d_backward",
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "replication_pad1d_backward",
    "replication_pad2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "upsample_nearest1d_backward",
    "upsample_nearest2d_backward",
    "upsample_nearest3d_backward",
    "upsample_trilinear3d_backward",
)
def spatial(labelling: Labelling, call: Call) -> Result:
    """Fix positions of a pooling's gradient; join channels."""
    shape = tuple(call.output.shape)
    count = next(int(digit) for digit in "123" if f"{digit}d" in call.name)
    axes, reason = range(len(shape) - count, len(shape)), f"{call.name} mixes its neighbours"
    parts = [
        with_positions_fixed(labelling, labelling.labels(tensor), axes, shape, reason)
        for tensor in call.tensors
    ]
    return labelling.join(parts, shape)
