"""Join tensors that meet element by element."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


@rule(
    "pointwise",
    "binary_cross_entropy_backward",
    "complex",
    "dropout",
    "elu_backward",
    "hardshrink_backward",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh_backward",
    "huber_loss_backward",
    "leaky_relu_backward",
    "log_sigmoid_backward",
    "masked_fill",
    "mse_loss_backward",
    "polar",
    "prelu",
    "_prelu_kernel",
    "_prelu_kernel_backward",
    "rrelu_with_noise_backward",
    "smooth_l1_loss_backward",
    "soft_margin_loss_backward",
    "softplus_backward",
    "softshrink_backward",
    "_to_copy",
    "where",
)
def pointwise(labelling: Labelling, call: Call) -> Result:
    """Join the operands of a function of elements."""
    tensors = [tensor for tensor in call.tensors if tensor.numel() or not call.output.numel()]
    labels = labelling.join([labelling.labels(tensor) for tensor in tensors], call.output.shape)
    if isinstance(call.outputs, Tensor):
        return labels
    return [labels if tuple(output.shape) == labels.shape else None for output in call.outputs]


@rule("rrelu_with_noise", "rrelu_with_noise_functional")
def randomized_leaky_relu(labelling: Labelling, call: Call) -> Result:
    """Keep labels; refuse slopes drawn in training."""
    if call["training"] and not labelling.noise_is_symmetric:
        raise NotUnderstoodError("it is random")
    labels = labelling.labels(call["self"])
    return labels if isinstance(call.outputs, Tensor) else [labels, labels]


@rule("glu")
def gated(labelling: Labelling, call: Call) -> Result:
    """Join the first half of an axis with the second."""
    labels = labelling.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    middle = labels.shape[axis] // 2
    halves = [labels.taken(axis, np.arange(middle) + start) for start in (0, middle)]
    return labelling.join(halves, call.output.shape)


@rule("native_dropout", "log_sigmoid_forward")
def with_second_output(labelling: Labelling, call: Call) -> Result:
    """Label both outputs of a function of elements."""
    labels = labelling.labels(call.tensors[0])
    outputs = [output for output in call.outputs if isinstance(output, Tensor)]
    return [labels if output.shape == labels.shape else None for output in outputs]


@rule(
    "empty",
    "empty_like",
    "empty_strided",
    "fill",
    "full",
    "full_like",
    "new_empty",
    "new_empty_strided",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones",
    "ones_like",
    "scalar_tensor",
    "zero",
    "zeros",
    "zeros_like",
)
def value_free(labelling: Labelling, call: Call) -> Result:
    """Label tensors that hold one value everywhere."""
    return Labels(tuple(call.output.shape))
