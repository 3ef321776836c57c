"""Runs in the published environment: what one data-free training step and one evaluation cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from experiments.models import COST_NETWORKS
from experiments.published import peer
from experiments.step_cost.memory import peak_memory


def run(architecture: str, repeat: int = 3, parts: tuple[str, ...] = ("train", "eval")) -> dict[str, Any]:
    """Time `repeat` steps of each part; the network is built, and one step taken unmeasured, at its first call."""
    steps, parameters, memory = _prepared(architecture)
    result: dict[str, Any] = {"parameters": parameters, "start_memory_mb": memory}
    for part in parts:
        times = [_milliseconds(steps[part]) for _ in range(repeat)]
        result |= {f"{part}_ms": statistics.median(times), f"{part}_ms_all": times}
    return {**result, "peak_memory_mb": peak_memory()}


@cache
def _prepared(architecture: str) -> tuple[dict[str, Callable[[], None]], int, float]:
    torch.manual_seed(0)
    plan = COST_NETWORKS[architecture]
    memory = peak_memory()
    net = peer.rebasin_net(plan.build(), list(plan.input_shape))
    reference = plan.build().eval()
    criterion, optimizer = peer.peer_loss("l2", reference), peer.optimizer(net, lr=0.1)

    def train() -> None:
        net.train()
        loss = criterion(net())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def evaluate() -> None:
        net.eval()
        criterion(net())

    train()
    return {"train": train, "eval": evaluate}, sum(p.numel() for p in reference.parameters()), memory


def _milliseconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3
