"""What a plane of a ResNet20 costs, beside a loop of forwards that does the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from experiments.models import build_model
from experiments.models.family import Batches, batches_of
from sinkhorn_rebasin.landscape import Plane, evaluate_plane

GRID = 51


def cost_rows(images: int, points: int, batch: int = 250) -> list[dict[str, Any]]:
    """Measure processor seconds a point of every way, and tell what a grid of 51 x 51 takes.

    The network is a ResNet20 1x on random images of CIFAR-10's shape: its weights do not change what a point costs.
    A point costs what a grid takes more than one of 2 x 2, so that what is done once counts once. Ways take turns.

    Args:
        images: at every point.
        points: of each axis of the larger grid that is measured, at least 3.
        batch: images that run at once.
    """
    plane = Plane.through(
        {name: build_model("resnet20").eval() for name in ("reference", "target", "aligned")}
    )
    data = batches_of(torch.randn(images, 3, 32, 32), torch.randint(10, (images,)), batch)
    seconds: dict[str, list[float]] = {name: [] for name in ways()}
    for size in (2, points):
        for name, way in ways().items():
            began = time.process_time()
            way(plane, data, size)
            seconds[name].append(time.process_time() - began)
    apart = {name: (more - few) / (points**2 - 4) for name, (few, more) in seconds.items()}
    whole = {name: few + apart[name] * (GRID**2 - 4) for name, (few, _) in seconds.items()}
    return [
        {
            "way": name,
            "images": images,
            "points measured": 4 + points**2,
            "seconds a point": value,
            f"seconds for {GRID} x {GRID}, extrapolated": whole[name],
            "of the loop": whole[name] / whole["loop of forwards"],
        }
        for name, value in apart.items()
    ]


def ways() -> dict[str, Callable[[Plane, Batches, int], Any]]:
    """Return every way to measure a grid, by name."""
    return {
        "loop of forwards": loop_of_forwards,
        "evaluate_plane": lambda plane, data, points: evaluate_plane(plane, data, points=points),
        "evaluate_plane, bfloat16": in_bfloat16,
    }


@torch.no_grad()
def loop_of_forwards(plane: Plane, data: Batches, points: int) -> list[float]:
    """Load the weights of one point after the other, and run the network."""
    network = build_model("resnet20").eval()
    places = torch.linspace(-1, 1, points).tolist()
    losses = []
    for x, y in ((x, y) for y in places for x in places):
        network.load_state_dict(plane.state_at(x, y))
        total = sum(
            float(F.cross_entropy(network(images), labels, reduction="sum")) for images, labels in data
        )
        losses.append(total / sum(len(labels) for _, labels in data))
    return losses


def in_bfloat16(plane: Plane, data: Batches, points: int) -> Any:
    """Measure a grid in mixed precision, with the channels of images last in memory."""
    last = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in data]
    with torch.autocast("cpu", torch.bfloat16):
        return evaluate_plane(plane, last, points=points)
