"""Runs in the published environment: alignment by its midpoint or random-point loss, as in its examples."""

from __future__ import annotations

import importlib
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.published import peer


def run(
    folder: str,
    model: str,
    arguments: dict[str, Any],
    input_shape: list[int],
    steps: int = 180,
    lr: float = 0.1,
    batch_size: int = 1000,
    loss: str = "midpoint",
    permutation_type: str = "mat_mul",
    evaluate: bool = True,
    bfloat16: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Align, write `rebased.safetensors` into the folder and return losses and times."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    target = peer.load_network(folder, "target", model, arguments)
    reference = peer.load_network(folder, "reference", model, arguments)
    data = peer.load_tensors(folder, "tensors")
    net = peer.rebasin_net(target, input_shape, permutation_type=permutation_type)
    criterion = peer.peer_loss(loss, reference, criterion=nn.CrossEntropyLoss())
    optimizer = peer.optimizer(net, lr)
    losses: list[float] = []
    evaluations: list[float] = []
    seconds = {
        "setup_seconds": time.perf_counter() - start,
        "training_seconds": 0.0,
        "evaluation_seconds": 0.0,
    }
    while len(losses) < steps:
        start = time.perf_counter()
        net.train()
        for batch in torch.randperm(len(data["labels"])).split(batch_size)[: steps - len(losses)]:
            value = _midpoint_loss(net, criterion, data, batch, bfloat16)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        seconds["training_seconds"] += time.perf_counter() - start
        if evaluate:
            start = time.perf_counter()
            evaluations.append(_evaluate(net, criterion, data, batch_size, bfloat16))
            seconds["evaluation_seconds"] += time.perf_counter() - start
    _save_rebased(net, target, Path(folder))
    return {"losses": losses, "evaluation_losses": evaluations, **seconds}


def _midpoint_loss(
    net: Any, criterion: Any, data: dict[str, Tensor], batch: Tensor, bfloat16: bool
) -> Tensor:
    rebased = net()
    rebased.train()  # batch statistics, which its ResNet example brings about by deleting the running ones
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):  # its own operator refuses half precision
        value: Tensor = criterion(rebased, data["images"][batch], data["labels"][batch])
    return value


def _evaluate(net: Any, criterion: Any, data: dict[str, Tensor], batch_size: int, bfloat16: bool) -> float:
    """Its validation: the mean loss of the hard permutation over the training batches, gradients not switched off."""
    net.eval()
    batches = torch.randperm(len(data["labels"])).split(batch_size)
    total = sum(
        _midpoint_loss(net, criterion, data, batch, bfloat16).item() * len(batch) for batch in batches
    )
    return total / len(data["labels"])


def _save_rebased(net: Any, target: nn.Module, folder: Path) -> None:
    net.eval()
    rebased = deepcopy(net()).eval()
    state = rebased.state_dict()
    for name, value in target.state_dict().items():
        if name.endswith("num_batches_tracked"):  # counted up by the passes in training mode
            state[name] = value
    save_file = importlib.import_module("safetensors.torch").save_file
    save_file({name: value.detach().clone() for name, value in state.items()}, folder / "rebased.safetensors")
