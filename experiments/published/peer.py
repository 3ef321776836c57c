"""What the jobs in the published environment have in common: its classes, and networks at given weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.models import build_model

LOSSES = {"l1": "DistL1Loss", "l2": "DistL2Loss", "midpoint": "MidLoss", "random": "RndLoss"}


def load_tensors(folder: str, name: str) -> dict[str, Tensor]:
    """Return the tensors that the other process put into the folder under a name."""
    tensors: dict[str, Tensor] = importlib.import_module("safetensors.torch").load_file(
        Path(folder) / f"{name}.safetensors"
    )
    return tensors


def load_network(folder: str, name: str, model: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return a network in evaluation mode at the weights under a name."""
    network = build_model(model, **arguments)
    network.load_state_dict(load_tensors(folder, name))
    return network.eval()


def rebasin_net(target: nn.Module, input_shape: list[int], **settings: Any) -> Any:
    """Return its `RebasinNet` around a target that is in evaluation mode, so that tracing changes no statistics."""
    return importlib.import_module("rebasin").RebasinNet(
        target.eval(), input_shape=tuple(input_shape), **settings
    )


def peer_loss(name: str, reference: nn.Module, **settings: Any) -> Any:
    """Return one of its losses around the reference, whose parameters it freezes."""
    return getattr(importlib.import_module("rebasin.loss"), LOSSES[name])(reference, **settings)


def optimizer(net: Any, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser of its examples: AdamW on the scores."""
    return torch.optim.AdamW(net.p.parameters(), lr=lr)
