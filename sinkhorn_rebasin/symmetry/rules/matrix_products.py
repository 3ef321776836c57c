"""Matrix products: the contracted axes of both factors belong together and vanish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.registry import rule


def contract(
    labelling: Labelling,
    left: Labels,
    left_axes: Sequence[str],
    right: Labels,
    right_axes: Sequence[str],
    out: Sequence[str],
) -> Labels:
    """Contract two tensors by named axes, as einsum does.

    Axes that ``out`` omits are summed.
    """
    names = [*out, *dict.fromkeys(name for name in (*left_axes, *right_axes) if name not in out)]
    sizes = dict(zip((*left_axes, *right_axes), (*left.shape, *right.shape), strict=True))
    space = [sizes[name] for name in names]
    if 0 in space[len(out) :]:
        return Labels(tuple(space[: len(out)]))  # sums of nothing

    def placed(labels: Labels, axes: Sequence[str]) -> Labels:
        """Put labels on the common space of axes."""
        shape = [sizes[name] if name in axes else 1 for name in names]
        return labels.renamed(shape, [names.index(name) for name in axes])

    product = labelling.join([placed(left, left_axes), placed(right, right_axes)], space)
    summed = sum_out(labelling.relations, product, range(len(out), len(names)))
    return Labels(tuple(space[: len(out)]), summed.factors)


def multiply(labelling: Labelling, left: Tensor, right: Tensor) -> Labels:
    """Multiply two, possibly batched, matrices or vectors."""
    batch = "abcdefgh"[: max(left.dim(), right.dim()) - 2]
    left_axes = [*batch, "m", "k"] if left.dim() > 1 else ["k"]
    right_axes = [*batch, "k", "n"] if right.dim() > 1 else ["k"]
    out = [name for name in (*left_axes, *right_axes[-1:]) if name != "k"]
    for tensor in (left, right):
        for axis in range(len(batch), tensor.dim()):
            labelling.batched.record_product(
                labelling.relations, labelling.labels(tensor), [*range(len(batch)), axis]
            )
    return contract(labelling, labelling.labels(left), left_axes, labelling.labels(right), right_axes, out)


@rule("mm", "bmm", "mv", "dot", "vdot", "_sparse_sparse_matmul")
def matrix_product(labelling: Labelling, call: Call) -> Result:
    """Multiply two matrices, batches of matrices or vectors."""
    left, right = call.tensors[:2]
    return multiply(labelling, left, right)


@rule("addmm", "baddbmm", "addmv", "_addmm_activation", "_sparse_addmm", "sspaddmm")
def matrix_product_and_sum(labelling: Labelling, call: Call) -> Result:
    """Add a product to another tensor."""
    added, left, right = call.tensors[:3]
    product = multiply(labelling, left, right)
    return labelling.join([product, labelling.labels(added)], product.shape)


@rule("_grouped_mm")
def grouped_product(labelling: Labelling, call: Call) -> Result:
    """Multiply runs of rows by one matrix an expert.

    Note:
        Where the rows of an expert end is data, which is fixed.
    """
    rows, matrices, ends = call["self"], call["mat2"], call["offs"]
    if rows.dim() != 2 or matrices.dim() != 3 or ends is None:
        raise NotUnderstoodError("its matrices are not laid out row by row")
    reason = f"{call.name} gives rows to matrices by data"
    labelling.fix(labelling.labels(ends), reason)
    owner = np.searchsorted(ends.detach().cpu().numpy(), np.arange(rows.shape[0]), side="right")
    owner = np.minimum(owner, matrices.shape[0] - 1)
    every = labelling.labels(matrices)
    labelling.batched.record_visit(labelling.relations, every, owner, labelling.labels(rows))
    given = every.taken(0, owner)
    labelling.batched.record_product(labelling.relations, given, [0, 1])
    labelling.batched.record_product(labelling.relations, given, [0, 2])
    product = contract(labelling, labelling.labels(rows), ["m", "k"], given, ["m", "k", "n"], ["m", "n"])
    return (
        product
        if call["bias"] is None
        else labelling.join([product, labelling.labels(call["bias"])], product.shape)
    )


@rule("_cdist_forward", "_euclidean_dist")
def distances(labelling: Labelling, call: Call) -> Result:
    """Measure distances between rows of two matrices."""
    left, right = call["x1"], call["x2"]
    batch = [f"l{axis}" for axis in range(left.dim() - 2)]
    axes = [*batch, "m", "k"], [*batch[left.dim() - right.dim() :], "n", "k"]
    return contract(
        labelling, labelling.labels(left), axes[0], labelling.labels(right), axes[1], [*batch, "m", "n"]
    )


@rule("_trilinear")
def trilinear(labelling: Labelling, call: Call) -> Result:
    """Multiply three expanded tensors, and sum over axes."""
    parts = []
    for tensor, expanded in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        labels = labelling.labels(call[tensor])
        for axis in sorted(call[expanded]):
            labels = labels.reshaped((*labels.shape[:axis], 1, *labels.shape[axis:]))
        parts.append(labels)
    shape = tuple(max(lengths) for lengths in zip(*(labels.shape for labels in parts), strict=True))
    return sum_out(labelling.relations, labelling.join(parts, shape), call["sumdim"]).reshaped(
        tuple(call.output.shape)
    )


@rule("linear")
def linear(labelling: Labelling, call: Call) -> Result:
    """Map the last axis by a weight and a bias."""
    tensor, weight, bias = call["input"], call["weight"], call["bias"]
    lead = [f"l{axis}" for axis in range(tensor.dim() - 1)]
    product = contract(
        labelling, labelling.labels(tensor), [*lead, "k"], labelling.labels(weight), ["n", "k"], [*lead, "n"]
    )
    return product if bias is None else labelling.join([product, labelling.labels(bias)], product.shape)
