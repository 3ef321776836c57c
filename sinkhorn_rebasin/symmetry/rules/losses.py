"""Losses inside a network: a comparison of positions that meet, summed or not."""

from __future__ import annotations

import numpy as np
import torch

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.labels.summing import sum_out
from sinkhorn_rebasin.symmetry.rules.registry import rule
from sinkhorn_rebasin.symmetry.rules.scattering import without


def _summed(labelling: Labelling, call: Call, labels: Labels) -> Labels:
    """Apply the reduction that a loss names."""
    if call["reduction"] == 0:
        return labels
    return sum_out(labelling.relations, labels, range(len(labels.shape))).reshaped(())


@rule(
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "mse_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)
def elementwise_loss(labelling: Labelling, call: Call) -> Result:
    """Compare two tensors element by element, with broadcast weights."""
    shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in call.tensors))
    return _summed(
        labelling, call, labelling.join([labelling.labels(tensor) for tensor in call.tensors], shape)
    )


@rule("multi_margin_loss", "nll_loss_forward", "nll_loss2d_forward")
def loss_of_classes(labelling: Labelling, call: Call) -> Result:
    """Fix the axis of classes; join all others with targets."""
    scores, reason = labelling.labels(call["self"]), f"{call.name} looks up its positions by data"
    axis = min(1, len(scores.shape) - 1)
    if call["weight"] is not None:
        labelling.fix(labelling.labels(call["weight"]), reason)
    picked = without(labelling, scores, [axis], reason)
    target = labelling.labels(call["target"]).reshaped(picked.shape)
    compared = labelling.join([picked, target], picked.shape)
    compared = compared.reshaped([length for a, length in enumerate(picked.shape) if a != axis])
    loss = _summed(labelling, call, compared)
    if isinstance(call.outputs, torch.Tensor):
        return loss.reshaped(tuple(call.output.shape))
    total = sum_out(labelling.relations, target, range(len(target.shape))).reshaped(())
    return [loss, total]


@rule("nll_loss_backward", "nll_loss2d_backward")
def gradient_of_classes(labelling: Labelling, call: Call) -> Result:
    """Fix the axis of classes in a loss's gradient."""
    shape, reason = tuple(call.output.shape), f"{call.name} looks up its positions by data"
    axis = min(1, len(shape) - 1)
    flat = (*shape[:axis], 1, *shape[axis + 1 :])
    if call["weight"] is not None:
        labelling.fix(labelling.labels(call["weight"]), reason)
    parts = [
        Labels(shape, (fixed_factor(axis, shape[axis]),)),
        labelling.labels(call["target"]).reshaped(flat),
    ]
    gradient = labelling.labels(call["grad_output"])
    parts.append(gradient.reshaped(flat) if gradient.shape else gradient)
    return labelling.join([*parts, labelling.labels(call["total_weight"])], shape)
