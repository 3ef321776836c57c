"""Reduce axes symmetrically, so that rows of units become blocks."""

from __future__ import annotations

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.registry import axis_of, rule


def axes_argument(call: Call, rank: int) -> list[int]:
    """Read the axes of a reduction, all by default."""
    dim = call.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    return [axis_of(axis, rank) for axis in (dim if isinstance(dim, list | tuple) else [dim])]


@rule(
    "all",
    "amax",
    "amin",
    "any",
    "linalg_vector_norm",
    "logsumexp",
    "mean",
    "norm",
    "prod",
    "std",
    "sum",
    "var",
    "std_mean",
    "var_mean",
)
def reduce(labelling: Labelling, call: Call) -> Result:
    """Sum symmetrically over the axes reduced."""
    tensor = call.tensors[0]
    labels = sum_out(labelling.relations, labelling.labels(tensor), axes_argument(call, tensor.dim()))
    outputs = call.outputs if isinstance(call.outputs, list | tuple) else [call.outputs]
    return [labels.reshaped(tuple(output.shape)) for output in outputs]


@rule("_softmax", "_log_softmax", "_safe_softmax")
def softmax(labelling: Labelling, call: Call) -> Result:
    """Join positions with a symmetric sum over the axis."""
    labels = labelling.labels(call["self"])
    return with_statistics(labelling, labels, [axis_of(call["dim"], len(labels.shape))])


def with_statistics(labelling: Labelling, labels: Labels, axes: list[int]) -> Labels:
    """Join a tensor with its own symmetric statistics."""
    statistics = sum_out(labelling.relations, labels, axes)
    return labelling.join([labels, statistics], labels.shape)
