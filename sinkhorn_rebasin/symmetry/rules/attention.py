"""Fused attention, of which a network may choose the kernel itself: the same meets as in the single steps."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.matrix_products import contract
from sinkhorn_rebasin.symmetry.rules.reduction import with_statistics
from sinkhorn_rebasin.symmetry.rules.registry import rule


@rule(
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(labelling: Labelling, call: Call) -> Result:
    """Contract queries with keys, normalize, and mix values.

    Note:
        Heads of keys and values may serve several heads of queries.
    """
    if call["dropout_p"] and not labelling.noise_is_symmetric:
        raise NotUnderstoodError("it is random")
    query, key, value = (labelling.labels(call[name]) for name in ("query", "key", "value"))
    batch = [f"b{axis}" for axis in range(len(query.shape) - 2)]
    for labels in (query, key, value):
        for axis in (len(batch), len(batch) + 1):
            labelling.batched.record_product(labelling.relations, labels, [*range(len(batch)), axis])
    if batch:
        key, value = (
            _shared_by(labels, len(batch) - 1, query.shape[len(batch) - 1]) for labels in (key, value)
        )
    scores = contract(labelling, query, [*batch, "l", "e"], key, [*batch, "s", "e"], [*batch, "l", "s"])
    scores = labelling.join([scores, *_masks(labelling, call, scores)], scores.shape)
    shares = with_statistics(labelling, scores, [len(batch) + 1])
    mixed = contract(labelling, shares, [*batch, "l", "s"], value, [*batch, "s", "v"], [*batch, "l", "v"])
    totals = sum_out(labelling.relations, scores, [len(batch) + 1]).reshaped(scores.shape[:-1])
    second = call.outputs[1] if isinstance(call.outputs, list | tuple) else None
    return [mixed, totals if second is not None and tuple(second.shape) == totals.shape else None]


def _shared_by(labels: Labels, axis: int, heads: int) -> Labels:
    """Repeat heads for the queries' heads that each serves."""
    count = labels.shape[axis]
    return labels if count == heads else labels.taken(axis, np.repeat(np.arange(count), heads // count))


def _masks(labelling: Labelling, call: Call, scores: Labels) -> list[Labels]:
    """Label the bias, mask and causal triangle of scores."""
    masks = [
        labelling.labels(call[name]) for name in ("attn_mask", "attn_bias") if call.get(name) is not None
    ]
    if call["is_causal"]:
        axes = (len(scores.shape) - 2, len(scores.shape) - 1)
        masks.append(Labels(scores.shape, tuple(fixed_factor(axis, scores.shape[axis]) for axis in axes)))
    return masks
