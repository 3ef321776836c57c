"""Buffers of the state dict that may move with their group."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import State


def state_buffers(model: nn.Module) -> State:
    """Buffers of the state dict that may move with their group, as parameters do that are not trained.

    A spec is true of every network of an architecture: what the state dict holds decides nothing by its values. That
    leaves integers, which are places and counts.
    """
    saved = model.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if (buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool)
        and buffer.layout == torch.strided
        and not buffer.is_quantized
        and name in saved
    }
