"""Two MLPs trained on MNIST, aligned from the identity by all scores and by scores on candidates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from experiments.data.mnist import load_mnist
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, discover_symmetry
from sinkhorn_rebasin.assignment import temperature
from sinkhorn_rebasin.connectivity import evaluate_path

IMAGES = 8192


def trained(width: int, depth: int, seed: int, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Train an MLP for two epochs."""
    torch.manual_seed(seed)
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.ReLU())]
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), *hidden, nn.Linear(width, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network


def measure(root: Path, width: int, depth: int, counts: list[int], steps: int) -> list[dict[str, Any]]:
    """Align one pair with all scores and with each number of candidates, by equal steps."""
    torch.set_num_threads(1)
    data = load_mnist(root, IMAGES)
    images, labels = data.train_images.flatten(1), data.train_labels
    pair = [trained(width, depth, seed, images, labels) for seed in (0, 1)]
    spec = discover_symmetry(pair[0], images[:2])
    test = [(data.test_images.flatten(1)[:2000], data.test_labels[:2000])]
    choices: list[Literal["all"] | int] = ["all", *counts]
    return [
        {"width": width, "depth": depth} | aligned(*pair, spec, choice, steps, test) for choice in choices
    ]


def aligned(
    reference: nn.Module, target: nn.Module, spec: Any, candidates: Any, steps: int, test: Any
) -> dict[str, Any]:
    """Minimize the squared distance, and judge the hard permutations."""
    generator = torch.Generator().manual_seed(0)
    rebasin = SinkhornRebasin(
        *(reference, target),
        spec=spec,
        start="identity",
        noise=0.1,
        candidates=candidates,
        check=False,
        generator=generator,
    )
    elements = sum(parameter.numel() for parameter in reference.parameters())
    schedule, loss = temperature.geometric(1.0, 0.1), WeightDistance("l2")
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.1)
    started = time.process_time()
    for step in range(steps):
        rebasin.temperature.fill_(schedule(step / (steps - 1)))
        optimizer.zero_grad()
        (elements * loss(rebasin)).backward()
        optimizer.step()
    seconds = time.process_time() - started
    path = evaluate_path(rebasin, test, nn.functional.cross_entropy, points=5)
    return {
        "candidates": candidates,
        "squared distance": elements * float(loss(rebasin.eval())),
        "test barrier": float(path.barrier),
        "seconds": seconds,
    }
