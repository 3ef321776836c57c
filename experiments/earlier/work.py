"""One kind of work in whichever tree is on the path: for each line that comes in, once more, and its seconds.

    PYTHONPATH=TREE python experiments/earlier/work.py step "ResNet18" inner 1.0
    PYTHONPATH=TREE python experiments/earlier/work.py operator
    PYTHONPATH=TREE python experiments/earlier/work.py matching 384

For the operator, each line names a case: size, temperature and kind of scores, as in ``64 0.1 identity``.
Runs in its own process with one thread, and waits between two lines without using the processor. Times are processor
time, which other work on a shared machine lengthens less than the clock on the wall.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

TOLERANCES = {1.0: 1e-4, 0.3: 1e-4, 0.1: 1e-3}


def step(network: str, kind: str, fraction: str) -> Callable[[], None]:
    """A data-free training step, from identity plus a tenth of noise."""
    networks, package = (
        importlib.import_module("experiments.models"),
        importlib.import_module("sinkhorn_rebasin"),
    )
    torch.manual_seed(0)
    plan = networks.COST_NETWORKS[network]
    pair, example = [plan.build() for _ in range(2)], torch.randn(2, *plan.input_shape[1:])
    known = inspect.signature(package.SinkhornRebasin.__init__).parameters
    options = {"start" if "start" in known else "init": "identity"}
    # All scores in both trees, also of groups that have sparse ones by default.
    options |= {"candidates": "all"} if "candidates" in known else {}
    rebasin = package.SinkhornRebasin(*pair, example, noise=0.1, check=False, **options)
    part = {} if float(fraction) == 1 else {"fraction": float(fraction)}
    loss = package.WeightDistance(kind, **part)
    optimizer = torch.optim.AdamW(rebasin.parameters(), lr=0.1)

    def once() -> None:
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()

    return once


def operator(size: str, temperature: str, kind: str) -> Callable[[], None]:
    """One soft permutation, forward and backward."""
    sinkhorn = importlib.import_module("sinkhorn_rebasin.assignment").sinkhorn
    n, tau = int(size), float(temperature)
    generator = torch.Generator().manual_seed(0)
    noise, weights = (torch.randn(n, n, generator=generator) for _ in range(2))
    scores: Tensor = torch.eye(n) + 0.1 * noise if kind == "identity" else noise

    def once() -> None:
        leaf = scores.clone().requires_grad_()
        sinkhorn(leaf, tau, tolerance=TOLERANCES[tau]).matrix.backward(weights)

    return once


def matching(width: str) -> Callable[[], None]:
    """One pass of weight matching of two networks as GPT-2 begins: normal weights, biases of zero."""
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

    def once() -> None:
        package.weight_matching(*pair, spec, max_passes=1)

    return once


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    jobs: dict[str, Callable[..., Callable[[], None]]] = {
        "step": step,
        "operator": operator,
        "matching": matching,
    }
    made = cache(jobs[sys.argv[1]])
    for line in sys.stdin:
        once = made(*(sys.argv[2:] or line.split()))
        begin = time.process_time()
        once()
        print(time.process_time() - begin, flush=True)


if __name__ == "__main__":
    main()
