"""Convolutions of any dimension: grouped, depthwise, dilated, transposed."""

from __future__ import annotations

from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.matrix_products import contract
from sinkhorn_rebasin.symmetry.rules.normalization import with_channel_tensors
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import rule


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution")
def convolution(labelling: Labelling, call: Call) -> Result:
    """Sum over input channels of a group and neighbors."""
    tensor, weight = call["input"], call["weight"]
    groups, transposed = call["groups"], call.get("transposed", False)
    output = tuple(call.output.shape)
    kernel = kernel_labels(labelling, weight, groups, transposed)
    batch, channels, *positions = tensor.shape
    names = [f"s{axis}" for axis in range(len(positions))]
    data = _windows(labelling, call, output[2:])
    data = data.reshaped((batch, groups, channels // groups, *output[2:]))
    kernel_axes = ["g", "i", "o"] if transposed else ["g", "o", "i"]
    product = contract(labelling, data, ["b", "g", "i", *names], kernel, kernel_axes, ["b", "g", "o", *names])
    labels = product.reshaped(output)
    return with_channel_tensors(labelling, labels, [call.get("bias")], (1,))


def kernel_labels(labelling: Labelling, weight: Tensor, groups: int, transposed: bool) -> Labels:
    """Label a weight by (groups, o, i), its kernel fixed.

    When transposed, by (groups, i, o).
    """
    first, second, *kernel = weight.shape
    view = (groups, first // groups, second, *kernel)
    if groups > 1 and labelling.is_fresh_parameter(weight):
        window = [(3 + axis,) for axis, length in enumerate(kernel) if length > 1]
        labelling.lay_out(weight, view, [(0, 1), (0, 2), *window])
    labels = labelling.labels(weight).reshaped(view)
    fixed = with_positions_fixed(
        labelling,
        labels,
        range(3, len(view)),
        [*view[:3], *[1] * len(kernel)],
        "position in a convolution kernel",
    )
    return fixed.reshaped(view[:3])


def _windows(labelling: Labelling, call: Call, positions: tuple[int, ...]) -> Labels:
    """Label the input at the positions of the output.

    Note:
        Only a kernel of one position leaves positions as they are.
    """
    labels = labelling.labels(call["input"])
    kernel = call["weight"].shape[2:]
    rank = len(kernel)
    stride, padding = call.get("stride", [1]), call.get("padding", [0])
    moved = []
    for axis in range(rank):
        untouched = (
            kernel[axis] == 1
            and stride[axis % len(stride)] == 1
            and padding[axis % len(padding)] == 0
            and positions[axis] == labels.shape[2 + axis]
        )
        if not untouched:
            moved.append(2 + axis)
    shape = (*labels.shape[:2], *positions)
    return with_positions_fixed(labelling, labels, moved, shape, "position that a convolution slides over")
