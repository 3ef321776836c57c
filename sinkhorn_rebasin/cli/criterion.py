"""The loss that the command measures: the model's own, else cross entropy."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def loss_of(outputs: Any, labels: Any) -> Tensor:
    """Return the loss that a model of transformers reports, else the cross entropy of its logits.

    >>> import torch
    >>> round(loss_of(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)).item(), 4)
    0.6931
    """
    loss = getattr(outputs, "loss", None)
    if isinstance(loss, Tensor):
        return loss
    logits = getattr(outputs, "logits", outputs)
    return F.cross_entropy(logits, labels)
