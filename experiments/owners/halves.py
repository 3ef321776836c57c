"""Two owners who have nearly all of one half of the classes each: merged, and then trained on few labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin
from experiments.data import ImageData
from experiments.models import build_model
from experiments.owners.clients import trained
from experiments.owners.kept import kept
from experiments.owners.noise import noise_like_data
from experiments.owners.one_round import accuracy, averaged
from sinkhorn_rebasin.merging.states import mean_state
from sinkhorn_rebasin.networks.resizing import resized

WIDTHS = (128, 128, 128)
NOISE, HELD_OUT, PASSES = 1000, 0.2, 10
RATES, PARTS = (1e-3, 3e-4), (0.5, 0.75, 1.0)
EQUAL = (0.5, 0.5)


def split_by_halves(labels: Tensor, part: float, seed: int) -> list[Tensor]:
    """Give the first owner a part of each sample of the first half of the classes, and the second that of the rest.

    Example:
        >>> first, second = split_by_halves(torch.arange(1000) % 10, 0.9, seed=0)
        >>> torch.bincount(torch.arange(1000)[first] % 10).tolist()
        [90, 90, 90, 90, 90, 10, 10, 10, 10, 10]
    """
    generator = torch.Generator().manual_seed(seed)
    classes = int(labels.max()) + 1
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in range(classes):
        places = torch.nonzero(labels == label).flatten()
        places = places[torch.randperm(len(places), generator=generator)]
        count, owner = round(part * len(places)), int(label >= classes / 2)
        parts[owner].append(places[:count])
        parts[1 - owner].append(places[count:])
    return [torch.cat(each) for each in parts]


def owners_of(data: ImageData, part: float, seed: int, epochs: int, folder: Path | None) -> list[nn.Module]:
    """Train both owners from seeds of their own."""
    split = split_by_halves(data.train_labels, part, seed)
    networks = []
    for number, places in enumerate(split):
        begin = partial(fresh, data, 2 * seed + number)
        train = partial(trained, begin(), data, places, epochs=epochs, seed=2 * seed + number, batch_size=128)
        networks.append(kept(None if folder is None else folder / f"half-{number}.safetensors", begin, train))
    return networks


def fresh(data: ImageData, seed: int) -> nn.Module:
    """Make an untrained network of three hidden layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model("mlp", inputs=data.train_images[0].numel(), widths=WIDTHS, classes=data.classes)


def halves_rows(
    data: ImageData, part: float, seed: int, epochs: int, server: int, folder: Path | None = None
) -> list[dict[str, Any]]:
    """Measure what both owners make together, without data and after training on the server's labelled images."""
    data, (images, labels) = mixed(data, seed).hold_out(server)
    owners = owners_of(data, part, seed, epochs, folder)
    spec = sinkhorn_rebasin.discover_symmetry(owners[0], data.test_images[:2])
    matching = sinkhorn_rebasin.weight_matching(owners[0], owners[1], spec)
    moved = resized(owners[1], matching.apply(owners[1]))
    midpoint = resized(owners[0], mean_state([owners[0].state_dict(), moved.state_dict()]))
    noise = noise_like_data(owners, EQUAL, NOISE, data.image_shape, seed)
    ours = sinkhorn_rebasin.repair(midpoint, owners[0], moved, spec, [noise])
    few = replace(data, train_images=images, train_labels=labels)
    tune = partial(tuned, data=few, seed=seed)
    tests = partial(accuracy, images=data.test_images, labels=data.test_labels)
    alone = [tests(owner) for owner in owners]
    after = [tests(tune(owner)) for owner in owners]
    labelled = f"{server} labelled images"
    found = {
        ("one owner, mean", "–"): sum(alone) / 2,
        ("one owner, the better", "–"): max(alone),
        ("plain average", "–"): tests(averaged(owners, EQUAL)),
        ("weight matching", "–"): tests(midpoint),
        ("ours: weight matching, REPAIR on noise", "–"): tests(ours),
        ("ensemble", "–"): tests(partial(both, owners)),
        ("trained from one owner, mean", labelled): sum(after) / 2,
        ("trained from one owner, the better", labelled): max(after),
        ("trained from the weight-matched midpoint", labelled): tests(tune(midpoint)),
        ("trained from ours", labelled): tests(tune(ours)),
    }
    return [
        {"method": method, "data": used, "width": "", "accuracy": right}
        for (method, used), right in found.items()
    ]


def mixed(data: ImageData, seed: int) -> ImageData:
    """Mix the training images, whose last ones in the files are easier than the rest."""
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(seed))
    return replace(data, train_images=data.train_images[order], train_labels=data.train_labels[order])


def both(owners: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Return the mean probabilities."""
    return torch.stack([owner(inputs).softmax(1) for owner in owners]).mean(0)


def tuned(network: nn.Module, data: ImageData, seed: int) -> nn.Module:
    """Train on most of few images; the rate, and how far to go on the line to the end, are best on those held out."""
    data, (images, labels) = data.hold_out(round(HELD_OUT * len(data.train_labels)))
    places = torch.arange(len(data.train_labels))
    ends = [
        trained(network, data, places, epochs=PASSES, seed=seed, learning_rate=rate, batch_size=50)
        for rate in RATES
    ]
    states = [(network.state_dict(), end.state_dict()) for end in ends]
    tried = [resized(network, mean_state(pair, (1 - way, way))) for pair in states for way in PARTS]
    with torch.no_grad():
        return min(tried, key=lambda each: float(F.cross_entropy(each(images), labels)))
