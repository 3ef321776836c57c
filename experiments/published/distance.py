"""Runs in the published environment: the distance that its data-free l2 loss reaches, over processor seconds."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from experiments.published import peer


def run(
    folder: str,
    model: str,
    arguments: dict[str, Any],
    input_shape: list[int],
    lr: float = 0.1,
    iterations: int = 60,
    every: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Take steps from the identity plus noise; every few, note the squared distance of the hard-permuted target."""
    torch.manual_seed(seed)
    target = peer.load_network(folder, "target", model, arguments)
    reference = peer.load_network(folder, "reference", model, arguments)
    net, criterion = peer.rebasin_net(target, input_shape), peer.peer_loss("l2", reference)
    optimizer, seconds = peer.optimizer(net, lr), 0.0
    curve = [[seconds, 0, _distance(net, reference)]]
    for iteration in range(1, iterations + 1):
        begin = time.process_time()
        net.train()
        value = criterion(net())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seconds += time.process_time() - begin
        if iteration % every == 0:
            curve.append([seconds, iteration, _distance(net, reference)])
    return {"curve": curve}


@torch.no_grad()
def _distance(net: Any, reference: nn.Module) -> float:
    net.eval()
    rebased = dict(net().named_parameters())
    return sum(float((rebased[name] - value).square().sum()) for name, value in reference.named_parameters())
