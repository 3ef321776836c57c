"""Several rounds: a server merges what clients send, and sends it back to be trained on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.data import ImageData
from experiments.models import build_model
from experiments.owners.clients import dirichlet_split, trained
from experiments.owners.one_round import NOISE, accuracy, averaged, of_mean

HEAD = "classifier.2"
WAYS = ("FedAvg, one start for all", "plain average", "ours, data-free")


@dataclass(frozen=True)
class Plan:
    """Say how clients train.

    Attributes:
        clients: how many.
        rounds: how often they send their weights.
        epochs: over a client's own images in each round.
        widths, hidden: of the network.
        seed: of the split, the starts and the order of images.
    """

    clients: int = 10
    rounds: int = 10
    epochs: int = 1
    widths: tuple[int, ...] = (16, 32)
    hidden: int = 64
    seed: int = 0


def curve(way: str, data: ImageData, plan: Plan) -> dict[str, Any]:
    """Return the test accuracy after each round, and the seconds of the server's work."""
    split = dirichlet_split(data.train_labels, plan.clients, 0.5, plan.seed)
    total = sum(map(len, split))
    shares = [len(places) / total for places in split]
    first = plan.clients * plan.seed
    starts = [
        _fresh(data, plan, first if way.startswith("FedAvg") else first + number)
        for number in range(plan.clients)
    ]
    found, seconds = [], 0.0
    for number in range(plan.rounds):
        networks = [
            trained(start, data, places, epochs=plan.epochs, seed=1000 * number + first + client)
            for client, (start, places) in enumerate(zip(starts, split, strict=True))
        ]
        began = time.process_time()
        merged = served(way, networks, shares, data.test_images[:2], number)
        seconds += time.process_time() - began
        starts = [merged] * plan.clients
        found.append(accuracy(merged, data.test_images, data.test_labels))
    return {"method": way, "accuracies": found, "server_seconds": seconds}


def served(
    way: str, networks: Sequence[nn.Module], shares: Sequence[float], inputs: Tensor, number: int
) -> nn.Module:
    """Merge what the clients of one round sent; ours re-basins once, where starts differed."""
    if not way.startswith("ours"):
        return averaged(networks, shares)
    noise = torch.randn((NOISE, *inputs.shape[1:]), generator=torch.Generator().manual_seed(number))
    known = sinkhorn_rebasin.known_classes(networks, noise, shares)
    weighed = sinkhorn_rebasin.weigh_classes(networks, known, HEAD, shares)
    if number:
        return averaged(weighed, shares)
    spec = sinkhorn_rebasin.discover_symmetry(networks[0], inputs)
    together = sinkhorn_rebasin.match_many(networks, spec, method="frank_wolfe", max_rounds=60)
    return of_mean(weighed, together, shares)


def _fresh(data: ImageData, plan: Plan, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(
            "cnn",
            channels=data.image_shape[0],
            size=data.image_shape[1],
            widths=plan.widths,
            hidden=plan.hidden,
            classes=data.classes,
        )
