"""Element-wise operations: positions that meet belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels import Labels
from sinkhorn_rebasin.symmetry.rules.registry import Call, Result, axis_of, rule

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.trace import Tape


@rule(
    "pointwise",
    "_to_copy",
    "dropout",
    "hardswish",
    "masked_fill",
    "prelu",
    "_prelu_kernel",
    "where",
)
def pointwise(tape: Tape, call: Call) -> Result:
    """Functions of one or several tensors, element by element, with broadcasting."""
    return tape.join([tape.labels(tensor) for tensor in call.tensors], call.output.shape)


@rule("glu")
def gated(tape: Tape, call: Call) -> Result:
    """The first half of an axis times a function of the second."""
    labels = tape.labels(call["self"])
    axis = axis_of(call["dim"], len(labels.shape))
    middle = labels.shape[axis] // 2
    halves = [labels.taken(axis, np.arange(middle) + start) for start in (0, middle)]
    return tape.join(halves, call.output.shape)


@rule("native_dropout", "log_sigmoid_forward")
def with_second_output(tape: Tape, call: Call) -> Result:
    """Functions that return a second tensor, made element by element as well: a mask, what the gradient needs."""
    labels = tape.labels(call.tensors[0])
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
def value_free(tape: Tape, call: Call) -> Result:
    """Tensors that take only shape and type from another hold one value everywhere."""
    return Labels(tuple(call.output.shape))
