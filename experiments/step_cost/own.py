"""What one data-free training step and one eval step of this package cost; prints JSON.

    python -m experiments.step_cost.own "ResNet18" 5

Runs alone in its process, and imports nothing it does not need, so that the peak memory is the method's.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.models import COST_NETWORKS
from experiments.step_cost.memory import peak_memory
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance


def measure(name: str, repeat: int) -> dict[str, Any]:
    """Median milliseconds of a training and an eval step, and the peak memory of this process in MB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    architecture = COST_NETWORKS[name]
    start = peak_memory()
    reference, target = architecture.build(), architecture.build()
    parameters = sum(p.numel() for p in reference.parameters())
    example = torch.randn(2, *architecture.input_shape[1:])
    rebasin = SinkhornRebasin(reference, target, example, start="identity", noise=0.1, check=False)
    del reference, target
    loss = WeightDistance("l2")
    optimizer = torch.optim.AdamW(rebasin.parameters(), lr=0.1)

    def train_step() -> None:
        rebasin.train()
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()

    def eval_step() -> None:
        rebasin.eval()
        with torch.no_grad():
            loss(rebasin)

    train, evaluation = timed(train_step, repeat), timed(eval_step, repeat)
    return {
        "train_ms": statistics.median(train),
        "eval_ms": statistics.median(evaluation),
        "train_ms_all": train,
        "eval_ms_all": evaluation,
        "peak_memory_mb": peak_memory(),
        "start_memory_mb": start,
        "parameters": parameters,
    }


def timed(step: Callable[[], None], repeat: int) -> list[float]:
    """Milliseconds of each repetition after one to warm up."""
    step()
    found = []
    for _ in range(repeat):
        started = time.perf_counter()
        step()
        found.append(1e3 * (time.perf_counter() - started))
    return found


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
