"""GradFix, our own implementation: of the update, the entries that a few gradients of the new base agree with.

Source: "Gradient-sign masking for task vector transport across pre-trained models" (2025).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.carry.bench import Bench
from sinkhorn_rebasin.networks.copying import standalone_copy

LABELS = 20


def gradfix_update(bench: Bench) -> dict[str, Tensor]:
    r"""Keep the entries whose sign is that of a step downhill.

    .. math:: \Delta' = \Delta \odot [\operatorname{sign}(\Delta) = -\operatorname{sign}(\nabla \ell(\theta_{new}))]

    with the gradient of the new base on 20 labelled samples of the new task.
    """
    inputs, labels = bench.labelled(LABELS)
    network = standalone_copy(bench.pair.new_base).requires_grad_(True)
    with torch.enable_grad():
        F.cross_entropy(network(inputs), labels).backward()
    before = dict(bench.pair.base.named_parameters())
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    update = {}
    for name, tuned in bench.pair.tuned.named_parameters():
        change = (tuned - before[name]).detach()
        agrees = (
            change.sign() == -gradients[name].sign() if name in gradients else torch.zeros_like(change) > 0
        )
        update[name] = change * agrees
    return update
