"""A trained pair of tiny networks, its data, and short recipes, which the tests of the front door share."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin as sr

CPU = {"accelerator": "cpu"}
SHORT = sr.Recipe(steps=40, cycles=2, trials=1, closing_steps=10, evaluate_every=10, points=5)


@functools.cache
def samples(count: int = 400) -> tuple[Tensor, Tensor]:
    """Points of the plane in four classes, by their quadrant and ring, always the same."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 2, generator=generator)
    return points, 2 * (points.norm(dim=1) > 1.2).long() + (points[:, 0] * points[:, 1] > 0).long()


def batches(size: int = 20, count: int = 400) -> list[tuple[Tensor, Tensor]]:
    """The samples in batches."""
    return list(zip(*(part.split(size) for part in samples(count)), strict=True))


def loader(size: int = 20, **options: Any) -> DataLoader[Any]:
    """The samples in a DataLoader."""
    return DataLoader(TensorDataset(*samples()), size, **{"shuffle": True, **options})


def untrained(seed: int, width: int = 8) -> nn.Module:
    """Two hidden layers of ReLU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        return nn.Sequential(*layers)


@functools.cache
def trained(seed: int) -> nn.Module:
    """One such network, trained on the samples."""
    network = untrained(seed)
    points, labels = samples()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(network(points), labels).backward()
        optimizer.step()
    return network.requires_grad_(True).eval()


@functools.cache
def owners_of_one_start() -> tuple[nn.Module, ...]:
    """Three networks trained on from one, each on two thirds of the classes."""
    first, (points, labels), owners = untrained(2), samples(), []
    for missing in range(3):
        network, own = copy.deepcopy(first), labels % 3 != missing
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(70):
            optimizer.zero_grad()
            F.cross_entropy(network(points[own]), labels[own]).backward()
            optimizer.step()
        owners.append(network.eval())
    return tuple(owners)


def short(*networks: nn.Module, **options: Any) -> sr.AlignmentResult:
    """A short alignment of a pair on batches, without a bar."""
    given: dict[str, Any] = {
        "train": batches(),
        "recipe": SHORT,
        "trainer": CPU,
        "progress": False,
        **options,
    }
    return sr.align(*(networks or (trained(0), trained(1))), **given)


@functools.cache
def aligned() -> sr.AlignmentResult:
    """The trained pair, aligned."""
    return short()
