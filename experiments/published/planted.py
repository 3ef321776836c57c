"""Runs in the published environment: recovery of a planted permutation by its data-free loss."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from experiments.published import peer
from experiments.published.worker import RAISED


def run(
    folder: str,
    model: str,
    arguments: dict[str, Any],
    input_shape: list[int],
    iterations: int = 60,
    lr: float = 0.1,
    tau: float = 1.0,
    loss: str = "l2",
    start: str = "default",
    max_seconds: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Take steps until the hard-permuted target equals the reference; return when, how long, or what it raised."""
    torch.manual_seed(seed)
    found: dict[str, Any] = {
        "iteration": None,
        "iterations": 0,
        "step_seconds": 0.0,
        "losses": [],
        "error": None,
    }
    target = peer.load_network(folder, "target", model, arguments)
    reference = peer.load_network(folder, "reference", model, arguments)
    begun = time.perf_counter()
    try:
        net = peer.rebasin_net(target, input_shape, tau=tau)
        if start == "identity":
            net.identity_init()
        _search(net, reference, peer.peer_loss(loss, reference), lr, iterations, max_seconds, found)
    except RAISED as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return {**found, "seconds": time.perf_counter() - begun}


def _search(
    net: Any,
    reference: nn.Module,
    criterion: Any,
    lr: float,
    iterations: int,
    max_seconds: float | None,
    found: dict[str, Any],
) -> None:
    begun, optimizer = time.perf_counter(), peer.optimizer(net, lr)
    for iteration in range(1, iterations + 1):
        step = time.perf_counter()
        net.train()
        value = criterion(net())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found["step_seconds"] += time.perf_counter() - step
        found["losses"].append(value.item())
        found["iterations"] = iteration
        net.eval()
        if _equal(net(), reference):
            found["iteration"] = iteration
            return
        if max_seconds is not None and time.perf_counter() - begun > max_seconds:
            return


def _equal(rebased: nn.Module, reference: nn.Module) -> bool:
    other = reference.state_dict()
    return all(torch.equal(value, other[name]) for name, value in rebased.state_dict().items())
