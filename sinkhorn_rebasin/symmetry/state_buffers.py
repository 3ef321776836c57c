"""Find buffers that may move with their group."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import State


def state_buffers(model: nn.Module) -> State:
    """List floating buffers of the state dict.

    Note:
        Integers are places and counts, which a spec must not depend on.
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
