"""Operations that mix neighbouring positions of spatial axes and treat all channels alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sinkhorn_rebasin.symmetry.labels import Labels, fixed_factor, reduced
from sinkhorn_rebasin.symmetry.rules.registry import Call, Result, rule

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.trace import Tape


def with_positions_fixed(
    tape: Tape, labels: Labels, axes: Sequence[int], shape: Sequence[int], reason: str
) -> Labels:
    """Labels after neighbours along some axes have been mixed: those axes are fixed, in a new length.

    A unit that lives on such an axis is fixed; what is left on other axes keeps its label.
    """
    mixed = [factor for factor in labels.on(axes) if factor.has_units]
    for factor in mixed:
        tape.relations.fix(factor.ids, reason)
    kept = reduced(tape.relations, labels, axes)
    fresh = [fixed_factor(axis, shape[axis]) for axis in axes if shape[axis] > 1]
    return Labels(tuple(shape), (*kept.factors, *fresh))


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
def spatial(tape: Tape, call: Call) -> Result:
    """Pooling, interpolation and non-constant padding over the last axes, whose number the name tells."""
    tensor = call.tensors[0]
    count = next(int(digit) for digit in "123" if f"{digit}d" in call.name)
    axes = range(tensor.dim() - count, tensor.dim())
    outputs = call.outputs if isinstance(call.outputs, list | tuple) else [call.outputs]
    reason = f"{call.name} mixes its neighbours"
    labels = with_positions_fixed(tape, tape.labels(tensor), axes, outputs[0].shape, reason)
    return [labels for _ in outputs]
