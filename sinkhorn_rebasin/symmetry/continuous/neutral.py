"""Batch norms by their gains, which change nothing where their statistics are neutral."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms_among(network: nn.Module, gains: Collection[str]) -> dict[str, float]:
    """Name the batch norms with running statistics that have one of these gains, each with its epsilon.

    >>> batch_norms_among(nn.Sequential(nn.BatchNorm1d(2)), ["0.weight", "1.weight"])
    {'0': 1e-05}
    """
    return {
        name: module.eps
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and f"{name}.weight" in gains and module.running_var is not None
    }
