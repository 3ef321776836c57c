"""Tensors of a re-basin as they were before a Trainer converted them."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from sinkhorn_rebasin.rebasin.module import SinkhornRebasin


class OriginalTensors:
    """Remember a re-basin's tensors and put them back.

    A Trainer in ``bf16-true`` rounds the weights of both networks. The precision is that of the fit: what comes out
    of it are the networks that went in. Nothing is copied, and what keeps its type is left alone.

    Args:
        rebasin: before it is converted.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> rebasin = SinkhornRebasin(net, net, torch.randn(2, 4))
        >>> originals = OriginalTensors(rebasin)
        >>> _ = rebasin.bfloat16()
        >>> originals.put_back()
        >>> torch.equal(rebasin.target_state()["0.weight"], net[0].weight)
        True
    """

    def __init__(self, rebasin: SinkhornRebasin) -> None:
        self._buffers = [
            (name, owner, key, buffer)
            for name, owner in rebasin.named_modules()
            for key, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self._parameters = [
            (parameter, parameter.dtype, parameter.requires_grad) for parameter in rebasin.parameters()
        ]

    def converted(self) -> dict[str, Tensor]:
        """Return the networks' tensors whose type is another now.

        They are in their own type, by their names in the re-basin's state dict.
        """
        return {
            f"{name}.{key}": buffer
            for name, owner, key, buffer in self._buffers
            if _is_of_network(name) and owner._buffers[key].dtype != buffer.dtype
        }

    @torch.no_grad()
    def put_back(self) -> None:
        """Put networks back as they were, and what is learned into its type."""
        moved: dict[int, Tensor] = {}
        for name, owner, key, buffer in self._buffers:
            now = owner._buffers[key]
            if now is None or now.dtype == buffer.dtype:
                continue
            if _is_of_network(name):
                # Tied tensors stay one tensor.
                owner._buffers[key] = moved.setdefault(id(buffer), buffer.to(now.device))
            else:
                owner._buffers[key] = now.to(buffer.dtype)
        for parameter, dtype, requires_grad in self._parameters:
            if parameter.dtype != dtype:
                parameter.grad = None
                parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(requires_grad)


class PutsBackAfterErrors(lightning.Callback):
    """Put a re-basin's tensors back when a run ends in an error, after which modules are not torn down."""

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Tear the module down."""
        module: Any = pl_module
        module.put_originals_back()


def _is_of_network(name: str) -> bool:
    """Tell a tensor of the reference or the target from the re-basin's own.

    >>> [_is_of_network(name) for name in ("reference.0", "rebasins.1.target", "scalings", "rebasins.0.scalings")]
    [True, True, False, False]
    """
    parts = name.split(".")
    return (parts[2:3] if parts[0] == "rebasins" else parts[:1]) in (["reference"], ["target"])
