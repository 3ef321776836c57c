"""Move, repeat or drop elements: run the operation on the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.concatenating import concatenated, scattered
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


@rule(
    "_reshape_alias",
    "_unsafe_view",
    "flatten",
    "reshape",
    "squeeze",
    "squeeze_copy",
    "unflatten",
    "unsqueeze",
    "unsqueeze_copy",
    "view",
    "view_copy",
    moves=True,
)
def reshape(labelling: Labelling, call: Call) -> Result:
    """Lay the elements under another shape."""
    labels, shape = labelling.labels(call["self"]), tuple(call.output.shape)
    if not shape:
        labelling.fix(labels, f"{call.name} reads a single unit")
        return Labels(shape)
    if math.prod(shape) != math.prod(labels.shape):
        raise NotUnderstoodError("it reads the bits of numbers as those of another type")
    if 0 in shape and [n for n in shape if n != 1] != [n for n in labels.shape if n != 1]:
        raise NotUnderstoodError("it reshapes an empty tensor")
    return labels.reshaped(shape)


@rule(
    "_conj",
    "_conj_copy",
    "_neg_view",
    "_neg_view_copy",
    "alias",
    "clone",
    "contiguous",
    "detach",
    "lift",
    "lift_fresh",
    "lift_fresh_copy",
    moves=True,
)
def same(labelling: Labelling, call: Call) -> Result:
    """Keep the elements in other memory."""
    return labelling.labels(call.tensors[0])


@rule("copy", moves=True)
def copy(labelling: Labelling, call: Call) -> Result:
    """Replace a tensor by another one."""
    return labelling.labels(call["src"]).broadcast(tuple(call.output.shape))


@rule(
    "permute", "permute_copy", "t", "t_copy", "transpose", "transpose_copy", "numpy_T", "movedim", moves=True
)
def permute(labelling: Labelling, call: Call) -> Result:
    """Put axes in another order."""
    labels = labelling.labels(call["self"])
    rank = len(labels.shape)
    if call.get("dims") is not None:
        order = [axis_of(axis, rank) for axis in call["dims"]]
    else:
        order = list(range(rank))
        pair = (call.get("dim0", 0), call.get("dim1", rank - 1))
        first, second = (axis_of(axis, rank) for axis in pair)
        order[first], order[second] = order[second], order[first]
    places = [order.index(axis) for axis in range(rank)]
    return labels.renamed(tuple(call.output.shape), places)


@rule("slice", "slice_copy", moves=True)
def slice_axis(labelling: Labelling, call: Call) -> Result:
    """Take a range of positions of one axis."""
    labels = labelling.labels(call["self"])
    axis, index = _slice_index(call, labels.shape)
    return labels.taken(axis, index)


@rule("narrow", "narrow_copy", moves=True)
def narrow(labelling: Labelling, call: Call) -> Result:
    """Take a run of positions of one axis."""
    labels = labelling.labels(call["self"])
    start = call["start"]
    return labels.taken(axis_of(call["dim"], len(labels.shape)), np.arange(start, start + call["length"]))


@rule("select", "select_copy", moves=True)
def select(labelling: Labelling, call: Call) -> Result:
    """Take one position of one axis, which vanishes."""
    labels = labelling.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    return _without(labelling, labels.taken(axis, np.array([call["index"] % labels.shape[axis]])), axis, call)


@rule("unbind", "unbind_copy", moves=True)
def unbind(labelling: Labelling, call: Call) -> Result:
    """Split one axis into its positions."""
    labels = labelling.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    return [
        _without(labelling, labels.taken(axis, np.array([index])), axis, call)
        for index in range(labels.shape[axis])
    ]


def _without(labelling: Labelling, labels: Labels, axis: int, call: Call) -> Labels:
    """Drop an axis of length 1."""
    shape = labels.shape[:axis] + labels.shape[axis + 1 :]
    if not shape:
        labelling.fix(labels, f"{call.name} reads a single unit")
        return Labels(shape)
    return labels.reshaped(shape)


@rule(
    "chunk",
    "split",
    "split_copy",
    "split_with_sizes",
    "split_with_sizes_copy",
    "tensor_split",
    "unsafe_chunk",
    "unsafe_split",
    "unsafe_split_with_sizes",
    moves=True,
)
def split(labelling: Labelling, call: Call) -> Result:
    """Split one axis into consecutive parts."""
    labels = labelling.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    ends = np.cumsum([part.shape[axis] for part in call.outputs])
    return [
        labels.taken(axis, np.arange(end - part.shape[axis], end))
        for part, end in zip(call.outputs, ends, strict=True)
    ]


@rule("cat", "concat", moves=True)
def cat(labelling: Labelling, call: Call) -> Result:
    """Lay tensors end to end."""
    tensors = [tensor for tensor in call["tensors"] if tensor.dim() == call.output.dim()]
    axis = axis_of(call["dim"], call.output.dim())
    return concatenated(labelling.relations, [labelling.labels(tensor) for tensor in tensors], axis)


@rule("stack", moves=True)
def stack(labelling: Labelling, call: Call) -> Result:
    """Lay tensors side by side along a new axis."""
    axis = axis_of(call["dim"], call.output.dim())
    parts = [labelling.labels(tensor) for tensor in call["tensors"]]
    lifted = [part.reshaped((*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return concatenated(labelling.relations, lifted, axis)


@rule("expand", "expand_copy", "broadcast_to", moves=True)
def expand(labelling: Labelling, call: Call) -> Result:
    """Repeat axes of length 1 and new leading axes."""
    return labelling.labels(call["self"]).broadcast(tuple(call.output.shape))


@rule("repeat", moves=True)
def repeat(labelling: Labelling, call: Call) -> Result:
    """Tile the whole tensor along every axis."""
    labels = labelling.labels(call["self"])
    lead = call.output.dim() - len(labels.shape)
    labels = labels.reshaped((*[1] * lead, *labels.shape))
    for axis, times in enumerate(call["repeats"]):
        labels = labels.taken(axis, np.tile(np.arange(labels.shape[axis]), times))
    return labels


@rule("flip", moves=True)
def flip(labelling: Labelling, call: Call) -> Result:
    """Reverse axes."""
    labels = labelling.labels(call["self"])
    for dim in call["dims"]:
        axis = axis_of(dim, len(labels.shape))
        labels = labels.taken(axis, np.arange(labels.shape[axis])[::-1])
    return labels


@rule("roll", moves=True)
def roll(labelling: Labelling, call: Call) -> Result:
    """Shift axes cyclically."""
    labels = labelling.labels(call["self"])
    if not call["dims"]:
        raise NotUnderstoodError("it rolls a flattened tensor")
    for dim, shift in zip(call["dims"], call["shifts"], strict=True):
        axis = axis_of(dim, len(labels.shape))
        labels = labels.taken(axis, np.roll(np.arange(labels.shape[axis]), shift))
    return labels


@rule("constant_pad_nd", moves=True)
def constant_pad(labelling: Labelling, call: Call) -> Result:
    """Pad axes by one value, or crop them."""
    labels = labelling.labels(call["self"])
    for step in range(len(call["pad"]) // 2):
        before, after = call["pad"][2 * step : 2 * step + 2]
        labels = padded(labelling, labels, len(labels.shape) - 1 - step, before, after)
    return labels


def padded(labelling: Labelling, labels: Labels, axis: int, before: int, after: int) -> Labels:
    """Pad one axis by one value on either side."""
    length = labels.shape[axis]
    blank = max(0, before) + max(0, after)
    if blank:
        # One blank part for both sides: its positions hold one value and are interchangeable.
        labels = concatenated(labelling.relations, [labels, _blank(labels, axis, blank)], axis)
    inside = np.arange(max(0, -before), length - max(0, -after))
    outside = length + np.arange(blank)
    start = max(0, before)
    return labels.taken(axis, np.concatenate([outside[:start], inside, outside[start:]]))


def _blank(labels: Labels, axis: int, length: int) -> Labels:
    """Label padding, along which nothing varies."""
    return Labels((*labels.shape[:axis], length, *labels.shape[axis + 1 :]))


@rule("slice_scatter", moves=True)
def slice_scatter(labelling: Labelling, call: Call) -> Result:
    """Overwrite a range of one axis by another tensor."""
    labels = labelling.labels(call["self"])
    axis, index = _slice_index(call, labels.shape)
    return scattered(labelling.relations, labels, labelling.labels(call["src"]), axis, index)


@rule("select_scatter", moves=True)
def select_scatter(labelling: Labelling, call: Call) -> Result:
    """Overwrite one position of one axis by another tensor."""
    labels, source = labelling.labels(call["self"]), labelling.labels(call["src"])
    axis = axis_of(call["dim"], len(labels.shape))
    source = source.reshaped((*labels.shape[:axis], 1, *labels.shape[axis + 1 :]))
    return scattered(
        labelling.relations, labels, source, axis, np.array([call["index"] % labels.shape[axis]])
    )


def _slice_index(call: Call, shape: Sequence[int]) -> tuple[int, Ids]:
    """Read the axis and the positions of a slice."""
    axis = axis_of(call["dim"], len(shape))
    return axis, np.arange(shape[axis])[slice(call["start"], call["end"], call["step"])]
