"""One measurement of whichever tree is on the path; prints JSON.

    PYTHONPATH=TREE python experiments/earlier/work.py step "ResNet18" inner 1.0 5
    PYTHONPATH=TREE python experiments/earlier/work.py operator 64 0.1 identity 30
    PYTHONPATH=TREE python experiments/earlier/work.py matching 384 1

Runs alone in its process with one thread. Times are processor time, which other work on a shared machine lengthens
less than the clock on the wall.
"""

from __future__ import annotations

import importlib
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCES = {1.0: 1e-4, 0.1: 1e-3}


def step(network: str, kind: str, fraction: str, repeat: str) -> dict[str, Any]:
    """Milliseconds of one data-free training step, from identity plus a tenth of noise."""
    networks, package = (
        importlib.import_module("experiments.models"),
        importlib.import_module("sinkhorn_rebasin"),
    )
    torch.manual_seed(0)
    plan = networks.COST_NETWORKS[network]
    pair, example = [plan.build() for _ in range(2)], torch.randn(2, *plan.input_shape[1:])
    started = "start" if "start" in inspect.signature(package.SinkhornRebasin.__init__).parameters else "init"
    rebasin = package.SinkhornRebasin(*pair, example, noise=0.1, check=False, **{started: "identity"})
    part = {} if float(fraction) == 1 else {"fraction": float(fraction)}
    loss = package.WeightDistance(kind, **part)
    optimizer = torch.optim.AdamW(rebasin.parameters(), lr=0.1)

    def one() -> None:
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()

    times = timed(one, int(repeat))
    return {"ms": 1e3 * statistics.median(times), "all_ms": [1e3 * each for each in times]}


def operator(size: str, temperature: str, kind: str, repeat: str) -> dict[str, Any]:
    """Milliseconds of one soft permutation, forward and backward."""
    sinkhorn = importlib.import_module("sinkhorn_rebasin.assignment").sinkhorn
    n, tau = int(size), float(temperature)
    generator = torch.Generator().manual_seed(0)
    noise, weights = (torch.randn(n, n, generator=generator) for _ in range(2))
    scores: Tensor = torch.eye(n) + 0.1 * noise if kind == "identity" else noise

    def one() -> None:
        leaf = scores.clone().requires_grad_()
        sinkhorn(leaf, tau, tolerance=TOLERANCES[tau]).matrix.backward(weights)

    times = timed(one, int(repeat))
    return {"ms": 1e3 * statistics.median(times)}


def matching(width: str, passes: str) -> dict[str, Any]:
    """Seconds of weight matching of two random networks as GPT-2 begins: normal weights, biases of zero."""
    networks, package = (
        importlib.import_module("experiments.models"),
        importlib.import_module("sinkhorn_rebasin"),
    )
    torch.manual_seed(0)
    pair = [networks.GPT(5000, 128, int(width), 1, int(width) // 64).eval() for _ in range(2)]
    for name, parameter in (named for net in pair for named in net.named_parameters()):
        if parameter.ndim > 1 or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.0)
    spec = package.discover_symmetry(pair[0], torch.randint(0, 100, (1, 8)))
    begin = time.process_time()
    found = package.weight_matching(*pair, spec, max_passes=int(passes))
    return {"seconds": time.process_time() - begin, "objective": found.objective[-1]}


def timed(one: Callable[[], None], repeat: int) -> list[float]:
    """Seconds of each repetition after two to warm up."""
    times = []
    for _ in range(repeat + 2):
        begin = time.process_time()
        one()
        times.append(time.process_time() - begin)
    return times[2:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs: dict[str, Callable[..., dict[str, Any]]] = {
        "step": step,
        "operator": operator,
        "matching": matching,
    }
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
