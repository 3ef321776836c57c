"""Steps that take turns, for what one costs beside another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F


def plain_step(network: nn.Module, batch: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A training step of the network itself."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def alternating(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step in turns, after one of each to warm up."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in sorted(steps, reverse=turn % 2 == 0):
            began = time.process_time()
            steps[name]()
            times[name].append(1e3 * (time.process_time() - began))
    return times


def quartiles_of_ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """The middle half of the ratios of the turns, each of its own pair.

    >>> quartiles_of_ratios([2.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    [3.0, 5.0]
    """
    ratios = [one / other for one, other in zip(times, others, strict=True)]
    if len(ratios) == 1:
        return ratios * 2
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return [low, high]
