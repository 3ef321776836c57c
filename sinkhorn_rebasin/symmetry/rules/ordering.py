"""Fix the axis whose order an operation reads; keep the others."""

from __future__ import annotations

from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


@rule(
    "argmax",
    "argmin",
    "argsort",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "diff",
    "logcumsumexp",
)
def ordered(labelling: Labelling, call: Call) -> Result:
    """Fix the axis of running sums and extremal places."""
    tensor = call.tensors[0]
    labels = labelling.labels(tensor)
    if call.get("dim") is None:
        labelling.fix(labels, f"{call.name} reads the order of all axes")
        return [Labels(tuple(output.shape)) for output in _outputs(call)]
    axis = axis_of(call["dim"], tensor.dim())
    reason = f"{call.name} depends on the order of its axis"
    results = []
    for output in _outputs(call):
        kept = output.dim() == tensor.dim()
        length = output.shape[axis] if kept else 1
        shape = (*labels.shape[:axis], length, *labels.shape[axis + 1 :])
        fixed = with_positions_fixed(labelling, labels, [axis], shape, reason)
        results.append(fixed if kept else fixed.reshaped(tuple(output.shape)))
    return results


@rule("kthvalue", "max", "median", "min", "mode", "nanmedian", "sort", "topk")
def ranked(labelling: Labelling, call: Call) -> Result:
    """Sum values by rank; fix the axis once places are read."""
    tensor = call.tensors[0]
    if len(call.tensors) > 1:
        return labelling.join([labelling.labels(other) for other in call.tensors], call.output.shape)
    labels = labelling.labels(tensor)
    if "dim" not in call.arguments:
        every = sum_out(labelling.relations, labels, range(tensor.dim()))
        return [every.reshaped(tuple(output.shape)) for output in _outputs(call)]
    if not tensor.dim():
        return [labels, labels]
    axis = axis_of(call["dim"], tensor.dim())
    values, places = call.outputs
    kept = values.dim() == tensor.dim()
    length = values.shape[axis] if kept else 1
    shape = (*labels.shape[:axis], length, *labels.shape[axis + 1 :])
    ranks = [fixed_factor(axis, length)] if length > 1 else []
    values_by_rank = Labels(shape, (*sum_out(labelling.relations, labels, [axis]).factors, *ranks))
    values_by_rank = values_by_rank if kept else values_by_rank.reshaped(tuple(values.shape))
    labelling.fix_when_used(
        places,
        Labels(labels.shape, tuple(labels.factors_covering([axis]))),
        f"{call.name} tells where on its axis",
    )
    return [values_by_rank, values_by_rank]


@rule("_fft_c2c", "_fft_c2r", "_fft_r2c")
def spectrum(labelling: Labelling, call: Call) -> Result:
    """Fix the axes of a Fourier transform."""
    labels = labelling.labels(call["self"])
    axes = [axis_of(axis, len(labels.shape)) for axis in call["dim"]]
    reason = f"{call.name} depends on the order of its axis"
    return with_positions_fixed(labelling, labels, axes, tuple(call.output.shape), reason)


def _outputs(call: Call) -> list[Tensor]:
    """List the outputs of a call."""
    return list(call.outputs) if isinstance(call.outputs, list | tuple) else [call.outputs]
