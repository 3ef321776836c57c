"""One round: clients of different seeds train once, and a server merges what they send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin
from experiments.data import ImageData
from experiments.models import build_model
from experiments.owners.clients import dirichlet_split, trained
from experiments.owners.kept import kept
from experiments.owners.noise import noise_like_data
from sinkhorn_rebasin import ManyAlignment, Recipe, UnitPrior
from sinkhorn_rebasin.merging.match_many import ManyMethod
from sinkhorn_rebasin.merging.states import mean_state
from sinkhorn_rebasin.networks.resizing import resized

HEAD = "layers.2"
NOISE, HELD_OUT = 1000, 0.2
PRIORS = tuple(UnitPrior(sigma, sigma_0, most=700) for sigma in (1.0, 0.3, 0.1) for sigma_0 in (1.0, 10.0))
NAMES: dict[ManyMethod, str] = {
    "merge_many": "MergeMany",
    "universe": "universe",
    "frank_wolfe": "Frank-Wolfe",
}
WAYS = tuple(NAMES)
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sent:
    """Hold what a server gets, and what it has itself.

    Attributes:
        networks: of clients that started from different seeds.
        common: of the same clients, started from one seed.
        shares: of all samples.
        data: test images to report; a client's training images are no more than its places in them.
        unlabelled: a few images of the server.
        labels: of these images; only what tunes a method by labels reads them.
    """

    networks: Sequence[nn.Module]
    common: Sequence[nn.Module]
    shares: Sequence[float]
    data: ImageData
    unlabelled: Tensor
    labels: Tensor


def sent(
    data: ImageData,
    clients: int,
    seed: int,
    width: int,
    epochs: int,
    server: int,
    folder: Path | None = None,
) -> Sent:
    """Train every client twice, from a seed of its own, and from one seed; a folder keeps what is trained."""
    data, (unlabelled, labels) = data.hold_out(server)
    split = dirichlet_split(data.train_labels, clients, 0.5, seed)
    first = clients * seed

    def client(number: int, start: int, name: str) -> nn.Module:
        return kept(
            None if folder is None else folder / f"{name}-{number}.safetensors",
            partial(fresh, data, width, start),
            lambda: trained(
                fresh(data, width, start), data, split[number], epochs=epochs, seed=first + number
            ),
        )

    networks = [client(number, first + number, "own") for number in range(clients)]
    common = [client(number, first, "common") for number in range(clients)]
    total = sum(map(len, split))
    return Sent(networks, common, [len(places) / total for places in split], data, unlabelled, labels)


def fresh(data: ImageData, width: int, seed: int) -> nn.Module:
    """Make an untrained network of one hidden layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model("mlp", inputs=data.train_images[0].numel(), widths=[width], classes=data.classes)


def merged(got: Sent, recipe: Recipe) -> list[dict[str, Any]]:
    """Measure every way to merge; each row says what data it uses."""
    networks, shares = got.networks, got.shares
    x = got.data.test_images[:2]
    spec = sinkhorn_rebasin.discover_symmetry(networks[0], x)
    noise = noise_like_data(networks, shares, NOISE, got.data.image_shape)
    blind, seeing = (weighed(got, inputs) for inputs in (noise, got.unlabelled))
    matched = {way: sinkhorn_rebasin.match_many(networks, spec, method=way) for way in WAYS}
    # All raise one sum of products over pairs, so the method with the largest is known without data.
    together = max(matched.values(), key=lambda each: each.objective[-1])
    images, labels = "unlabelled images", "labelled images"
    taught = (got.unlabelled, got.labels)
    return [
        {"method": "one client, mean", "data": "–", "width": "", "accuracy": mean_accuracy(got)},
        _row(got, "plain average", "–", averaged(networks, shares)),
        _row(got, "FedAvg, one start for all", "–", averaged(got.common, shares)),
        _row(got, "PFNM, published σ, σ₀, γ", "–", sinkhorn_rebasin.pfnm(networks, x, shares=shares)),
        _row(got, "PFNM, tuned", labels, tuned(got, sinkhorn_rebasin.pfnm)),
        _row(got, "FedMA, tuned, not retrained", labels, tuned(got, sinkhorn_rebasin.fedma)),
        *(_row(got, NAMES[way], "–", of_mean(networks, matched[way], shares)) for way in WAYS),
        _row(got, "PFNM, published, our class weights", "–", sinkhorn_rebasin.pfnm(blind, x, shares=shares)),
        _row(got, "ours, data-free", "–", of_mean(blind, together, shares)),
        _row(got, "ours, not learned", images, of_mean(seeing, together, shares)),
        _row(got, "ours, learned", images, of_mean(seeing, learned(got, seeing, spec, recipe), shares)),
        _row(
            got, "ours, learned", labels, of_mean(seeing, learned(got, seeing, spec, recipe, taught), shares)
        ),
        _row(got, "ensemble", "–", lambda inputs: ensemble(got, inputs)),
    ]


def weighed(got: Sent, inputs: Tensor) -> list[nn.Module]:
    """Weigh every client's classes by what it knows, as its outputs on these inputs tell."""
    known = sinkhorn_rebasin.known_classes(got.networks, inputs, got.shares)
    return sinkhorn_rebasin.weigh_classes(got.networks, known, HEAD, got.shares)


def learned(
    got: Sent,
    networks: Sequence[nn.Module],
    spec: sinkhorn_rebasin.PermutationSpec,
    recipe: Recipe,
    taught: tuple[Tensor, Tensor] | None = None,
) -> ManyAlignment:
    """Learn permutations and scales so that the mean is right about the server's images.

    What is right is what the clients say together, or the labels that are given.
    """
    images, goals = taught or (got.unlabelled, said_together(got, got.unlabelled))
    kept_out = round(HELD_OUT * len(goals))
    held, train = (
        DataLoader(TensorDataset(images[part], goals[part]), batch_size=100)
        for part in (slice(kept_out), slice(kept_out, None))
    )
    return sinkhorn_rebasin.align_many(
        networks,
        spec,
        train=train,
        validation=held,
        criterion=F.cross_entropy,
        concentration=float("inf"),
        shares=got.shares,
        recipe=recipe,
        progress=False,
    )


@torch.no_grad()
def said_together(got: Sent, inputs: Tensor) -> Tensor:
    """Return what the clients say together, each about the classes that it knows."""
    known = sinkhorn_rebasin.known_classes(got.networks, inputs, got.shares).float()
    said = [network(inputs).softmax(1) for network in got.networks]
    told = torch.stack([row * each for row, each in zip(known, said, strict=True)]).sum(0)
    return told / told.sum(1, keepdim=True)


def tuned(got: Sent, method: Callable[..., nn.Module]) -> nn.Module:
    """Merge at the σ and σ₀ that are best on the server's labelled images."""
    tried = [
        method(got.networks, got.data.test_images[:2], shares=got.shares, prior=prior) for prior in PRIORS
    ]
    return max(tried, key=lambda network: accuracy(network, got.unlabelled, got.labels))


def averaged(networks: Sequence[nn.Module], shares: Sequence[float]) -> nn.Module:
    """Average weights as they are."""
    return of_mean(networks, None, shares)


def of_mean(
    networks: Sequence[nn.Module], alignment: ManyAlignment | None, shares: Sequence[float]
) -> nn.Module:
    """Make a network of the mean by shares of aligned networks."""
    if alignment is not None:
        return resized(networks[0], alignment.merge(networks, shares))
    return resized(networks[0], mean_state([network.state_dict() for network in networks], shares))


def ensemble(got: Sent, inputs: Tensor) -> Tensor:
    """Return the mean probabilities by shares."""
    return torch.stack(
        [share * network(inputs).softmax(1) for share, network in zip(got.shares, got.networks, strict=True)]
    ).sum(0)


def mean_accuracy(got: Sent) -> float:
    """Return the mean test accuracy of the clients' own networks."""
    each = [accuracy(network, got.data.test_images, got.data.test_labels) for network in got.networks]
    return sum(each) / len(each)


@torch.no_grad()
def accuracy(network: Run, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that are classified right."""
    return float((network(images).argmax(1) == labels).float().mean())


def _row(got: Sent, method: str, data: str, network: Run) -> dict[str, Any]:
    width: Any = ""
    if isinstance(network, nn.Module):
        width = next(p for p in network.parameters() if p.dim() > 1).shape[0]
    right = accuracy(network, got.data.test_images, got.data.test_labels)
    return {"method": method, "data": data, "width": width, "accuracy": right}
