"""Several rounds: a server merges what clients send, and sends it back to be trained on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.data import ImageData
from experiments.models import build_model
from experiments.models.endpoints import checksum
from experiments.owners.clients import Asked, asked_on, dirichlet_split, told_loss, trained
from experiments.owners.one_round import accuracy, averaged, of_mean
from sinkhorn_rebasin import ManyAlignment, PermutationSpec
from sinkhorn_rebasin.networks.resizing import resized

HEAD = "classifier.2"
WAYS = ("FedAvg, one start for all", "plain average", "ours, one start for all", "ours")
NOISE = 200
WEIGHED = "classes weighed"


@dataclass(frozen=True)
class Plan:
    """Say how clients train.

    Attributes:
        clients: how many.
        rounds: how often they send their weights.
        epochs: over a client's own images in each round.
        widths, hidden: of the network.
        asked: part of a client's images on which it is asked how good a network is.
        seed: of the split, the starts and the order of images.
    """

    clients: int = 10
    rounds: int = 10
    epochs: int = 1
    widths: tuple[int, ...] = (16, 32)
    hidden: int = 64
    asked: float = 0.1
    seed: int = 0


Trained = dict[tuple[str, int, int], nn.Module]
"""Networks that clients trained, by the weights they began with, the round and the client."""


def curve(way: str, data: ImageData, plan: Plan, known: Trained | None = None) -> dict[str, Any]:
    """Return the test accuracy after each round, what was kept, and the seconds of the server's work.

    Clients of ours tell their loss of what the server proposes on some of their own images; the mean decides.
    What is served is the best of all proposals. What clients train on is the best of those whose classes are not
    weighed: weights make up for classes that a client has not seen, and its next round would learn them in again.

    Args:
        way: one of ``WAYS``.
        data: shared out among the clients.
        plan: how they train.
        known: what clients trained in another way; what is missing is added.
    """
    ours, together = way.startswith("ours"), way.endswith("one start for all")
    split = dirichlet_split(data.train_labels, plan.clients, 0.5, plan.seed)
    shares = [len(places) / sum(map(len, split)) for places in split]
    first = plan.clients * plan.seed
    starts = [_fresh(data, plan, first if together else first + number) for number in range(plan.clients)]
    asked = asked_on(data, split, plan.asked, plan.seed)
    accuracies, kept, seconds = [], [], 0.0
    known = {} if known is None else known

    def after_a_round(start: nn.Module, number: int, client: int) -> nn.Module:
        """Train a client's network, unless another way did so from the same weights."""
        key = checksum(start.state_dict()), number, client
        if key not in known:
            seed = 1000 * number + first + client
            known[key] = trained(start, data, split[client], epochs=plan.epochs, seed=seed)
        return known[key]

    for number in range(plan.rounds):
        networks = [after_a_round(start, number, client) for client, start in enumerate(starts)]
        began = time.process_time()
        before = starts[0] if together or number else None
        proposals = proposed(networks, shares, data.test_images[:2], before, number) if ours else {}
        proposals = proposals or {"average": averaged(networks, shares)}
        served, network = best(proposals, asked)
        trained_on, start = best(unweighed(proposals), asked)
        seconds += time.process_time() - began
        starts = [start] * plan.clients
        accuracies.append(accuracy(network, data.test_images, data.test_labels))
        kept.append({"served": served, "trained on": trained_on})
    return {"method": way, "accuracies": accuracies, "kept": kept, "server_seconds": seconds}


def best(proposals: Mapping[str, nn.Module], asked: Asked) -> tuple[str, nn.Module]:
    """Return the proposal with the lowest loss over all clients' own images, and its name."""
    if len(proposals) == 1:
        return next(iter(proposals.items()))
    return min(proposals.items(), key=lambda each: told_loss(each[1], asked))


def unweighed(proposals: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the proposals in which every client counts alike for all classes.

    >>> list(unweighed({"average": nn.Identity(), "classes weighed": nn.Identity()}))
    ['average']
    """
    return {name: network for name, network in proposals.items() if WEIGHED not in name}


def proposed(
    networks: Sequence[nn.Module],
    shares: Sequence[float],
    inputs: Tensor,
    before: nn.Module | None,
    number: int,
) -> dict[str, nn.Module]:
    """Merge what the clients of one round sent in several ways.

    Where each began with a network of its own, all are aligned, and matrices get their norms back. Later the first
    way is the average as it is.

    Args:
        networks: as sent.
        shares: of the samples.
        inputs: of two images, for their shape alone.
        before: the network that all clients began the round with; None where each had its own.
        number: of the round, which noise is drawn by.
    """
    noise = torch.randn((NOISE, *inputs.shape[1:]), generator=torch.Generator().manual_seed(number))
    known = sinkhorn_rebasin.known_classes(networks, noise, shares)
    weighed = sinkhorn_rebasin.weigh_classes(networks, known, HEAD, shares)
    spec = sinkhorn_rebasin.discover_symmetry(networks[0], inputs)
    alignment = aligned(networks, spec, before)
    if before is None and alignment is not None:
        # Of networks near chance those with the smallest weights lose least, and learn slowest.
        norms = [norms_of(network) for network in networks]
        return {
            name: restored(of_mean(each, alignment, shares), norms)
            for name, each in (("aligned", networks), (f"aligned, {WEIGHED}", weighed))
        }
    proposals = {"average": averaged(networks, shares), WEIGHED: averaged(weighed, shares)}
    if alignment is not None:
        proposals["aligned"] = of_mean(networks, alignment, shares)
        proposals[f"aligned, {WEIGHED}"] = of_mean(weighed, alignment, shares)
    return proposals


def aligned(
    networks: Sequence[nn.Module], spec: PermutationSpec, before: nn.Module | None
) -> ManyAlignment | None:
    """Match all with each other, or with what they all began with; None where no unit moves."""
    if before is None:
        return sinkhorn_rebasin.match_many(networks, spec, method="merge_many")
    each = tuple(
        sinkhorn_rebasin.weight_matching(before, network, spec, start="identity") for network in networks
    )
    still = [
        torch.equal(order, torch.arange(order.shape[-1]).expand_as(order))
        for alignment in each
        for order in alignment.permutations.values()
    ]
    return None if all(still) else ManyAlignment(each)


def norms_of(network: nn.Module) -> dict[str, float]:
    """Return the norm of every matrix."""
    return {name: float(p.detach().norm()) for name, p in network.named_parameters() if p.dim() > 1}


def restored(merged: nn.Module, norms: Sequence[Mapping[str, float]]) -> nn.Module:
    """Scale each matrix to the mean norm of those it was averaged from.

    The mean of ten unrelated matrices has a third of their norm: a network that small hardly learns.
    """
    state = merged.state_dict()
    for name, norm in norms_of(merged).items():
        state[name] = state[name] * (sum(each[name] for each in norms) / len(norms) / max(norm, 1e-12))
    return resized(merged, state)


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
