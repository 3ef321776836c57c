"""Label batch, layer, group, instance and weight norm."""

from __future__ import annotations

from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.reduction import with_statistics
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


def with_channel_tensors(
    labelling: Labelling, labels: Labels, tensors: list[Tensor | None], axes: tuple[int, ...]
) -> Labels:
    """Join a tensor with tensors that lie along ``axes``."""
    placed = [labels]
    for tensor in tensors:
        if tensor is None:
            continue
        shape = [labels.shape[a] if a in axes else 1 for a in range(len(labels.shape))]
        placed.append(labelling.labels(tensor).reshaped([labels.shape[a] for a in axes]).reshaped(shape))
    return labelling.join(placed, labels.shape)


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def batch_norm(labelling: Labelling, call: Call) -> Result:
    """Take statistics over batch and positions, channel by channel."""
    labels = labelling.labels(call["input"])
    channel_tensors = [
        call.get("weight"),
        call.get("bias"),
        call.get("running_mean"),
        call.get("running_var"),
    ]
    statistics_from_batch = call.get("training", call.get("train", False)) or call.get("running_mean") is None
    if statistics_from_batch:
        labels = with_statistics(labelling, labels, [axis for axis in range(len(labels.shape)) if axis != 1])
    normalised = with_channel_tensors(labelling, labels, channel_tensors, (1,))
    # Means and variances that come along tell of their channel.
    others = [axis for axis in range(len(labels.shape)) if axis != 1]
    channels = sum_out(labelling.relations, normalised, others).reshaped((labels.shape[1],))
    along = [channels if tuple(output.shape) == channels.shape else None for output in call.outputs[1:]]
    return [normalised, *along]


@rule("_weight_norm_interface")
def weight_norm(labelling: Labelling, call: Call) -> Result:
    """Scale a weight by norms along all other axes."""
    labels = labelling.labels(call["v"])
    axes = [axis for axis in range(len(labels.shape)) if axis != axis_of(call["dim"], len(labels.shape))]
    norms = with_statistics(labelling, labels, axes)
    weight = labelling.join([norms, labelling.labels(call["g"])], labels.shape)
    return [weight, sum_out(labelling.relations, labels, axes)]


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(labelling: Labelling, call: Call) -> Result:
    """Take statistics over the last axes, which stay symmetric."""
    labels = labelling.labels(call["input"])
    rank = len(labels.shape)
    axes = tuple(range(rank - len(call["normalized_shape"]), rank))
    moments = sum_out(labelling.relations, labels, axes)
    labels = labelling.join([labels, moments], labels.shape)
    normalised = with_channel_tensors(labelling, labels, [call.get("weight"), call.get("bias")], axes)
    return [normalised, moments, moments]


@rule("native_group_norm")
def group_norm(labelling: Labelling, call: Call) -> Result:
    """Take statistics over groups of channels.

    Note:
        Channels move within their group, and groups move as blocks.
    """
    labels = labelling.labels(call["input"])
    batch, channels, *positions = labels.shape
    groups = call["group"]
    split = labels.reshaped((batch, groups, channels // groups, *positions))
    moments = sum_out(labelling.relations, split, range(2, len(split.shape)))
    labels = labelling.join([split, moments], split.shape).reshaped(labels.shape)
    normalised = with_channel_tensors(labelling, labels, [call.get("weight"), call.get("bias")], (1,))
    moments = moments.reshaped((batch, groups))
    return [normalised, moments, moments]
