"""Operations that depend on the order of one axis: it is fixed, the other axes keep their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkhorn_rebasin.symmetry.labels import Labels, reduced
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import Call, NotUnderstoodError, Result, axis_of, rule

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.trace import Tape


@rule(
    "argmax",
    "argmin",
    "argsort",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "diff",
    "kthvalue",
    "logcumsumexp",
    "median",
    "mode",
    "sort",
    "topk",
)
def ordered(tape: Tape, call: Call) -> Result:
    """Running sums, sorting, and the places of extrema along one axis."""
    tensor = call.tensors[0]
    if len(call.tensors) > 1:
        raise NotUnderstoodError("it compares several tensors")
    labels = tape.labels(tensor)
    if call.get("dim") is None:
        tape.fix(labels, f"{call.name} reads the order of all axes")
        return [Labels(tuple(output.shape)) for output in _outputs(call)]
    axis = axis_of(call["dim"], tensor.dim())
    reason = f"{call.name} depends on the order of its axis"
    results = []
    for output in _outputs(call):
        kept = output.dim() == tensor.dim()
        length = output.shape[axis] if kept else 1
        shape = (*labels.shape[:axis], length, *labels.shape[axis + 1 :])
        fixed = with_positions_fixed(tape, labels, [axis], shape, reason)
        results.append(fixed if kept else fixed.reshaped(tuple(output.shape)))
    return results


@rule("max", "min")
def extremum(tape: Tape, call: Call) -> Result:
    """The extremum of an axis is symmetric in it; its place is not, and fixes the axis once it is used."""
    tensor = call.tensors[0]
    if len(call.tensors) > 1:
        return tape.join([tape.labels(other) for other in call.tensors], call.output.shape)
    labels = tape.labels(tensor)
    if call.get("dim") is None:
        return Labels(tuple(call.output.shape))
    axis = axis_of(call["dim"], tensor.dim())
    values, place = _outputs(call)
    kept = reduced(tape.relations, labels, [axis]).reshaped(tuple(values.shape))
    tape.fix_on_use(place, labels.on([axis]), f"{call.name} tells a place along its axis")
    return [kept, kept]


@rule("_fft_c2c", "_fft_c2r", "_fft_r2c")
def spectrum(tape: Tape, call: Call) -> Result:
    """Fourier transforms along some axes."""
    labels = tape.labels(call["self"])
    axes = [axis_of(axis, len(labels.shape)) for axis in call["dim"]]
    reason = f"{call.name} depends on the order of its axis"
    return with_positions_fixed(tape, labels, axes, tuple(call.output.shape), reason)


def _outputs(call: Call) -> list[Tensor]:
    return list(call.outputs) if isinstance(call.outputs, list | tuple) else [call.outputs]
