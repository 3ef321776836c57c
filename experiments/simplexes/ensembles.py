"""Ensembles of three networks, and of what lies between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import sinkhorn_rebasin as sr
from experiments.data import ImageData
from experiments.data.data_module import BatchIndexed, as_it_is
from experiments.models.family import Batches, batches_of
from experiments.simplexes.setting import Setting, Way
from sinkhorn_rebasin.connectivity import LearnedComplex, Simplex
from sinkhorn_rebasin.training import CosineAnnealing, SimplexModule


def measured(
    networks: Sequence[nn.Module], data: ImageData, held: Batches, tests: Batches, setting: Setting, seed: int
) -> list[dict[str, Any]]:
    """Return one row an ensemble: its error, that of its members, and how many are run.

    Args:
        networks: the corners; the first is the reference of alignments.
        data: that they were trained on.
        held, tests: batches; held-out ones decide what alignments keep.
        setting: how simplexes are trained and drawn from.
        seed: of what is drawn.
    """
    count, first = setting.match_images, networks[0]
    train = batches_of(data.train_images[:count], data.train_labels[:count])
    options: dict[str, Any] = {"recipe": setting.recipe, "progress": False, "trainer": {"accelerator": "cpu"}}
    moved = [sr.align(first, other, train, held or None, **options).to_model() for other in networks[1:]]
    groups: dict[str, Sequence[nn.Module]] = {"as they are": networks, "aligned": [first, *moved]}
    draw = partial(chosen, train=train, held=held, setting=setting, seed=seed)
    learn = partial(trained, data=data, setting=setting, seed=seed)
    rows = [row("three networks", networks, tests)]
    around, how = draw({way: [learn([each], way=way) for each in networks] for way in setting.ways})
    rows.append({**row("a simplex around each", around, tests), **how})
    for name, corners in groups.items():
        drawn, how = draw({None: [Simplex(first, corners)]})
        rows.append({**row(f"their simplex, {name}", drawn, tests), **how})
        drawn, how = draw({way: [learn(corners, way=way)] for way in setting.ways})
        rows.append({**row(f"with learned vertices, {name}", drawn, tests), **how})
        rows.append(row(f"with learned vertices and the three, {name}", [*drawn, *networks], tests))
    return rows


def chosen(
    simplexes: Mapping[Way | None, Sequence[Simplex]],
    train: Batches,
    held: Batches,
    setting: Setting,
    seed: int,
) -> tuple[list[nn.Module], dict[str, Any]]:
    """Return networks drawn from simplexes, and how these were trained and drawn from.

    Of several ways and concentrations those whose ensemble has the least loss on held-out images are taken.
    """
    found = {
        (way, concentration): sampled(each, concentration, train, setting, seed)
        for way, each in simplexes.items()
        for concentration in setting.concentrations
    }
    losses = {how: ensemble_loss(members, held) for how, members in found.items() if len(found) > 1}
    best = min(losses, key=lambda how: losses[how]) if losses else next(iter(found))
    way, concentration = best
    return found[best], {"way": "–" if way is None else str(way), "concentration": concentration}


@torch.no_grad()
def ensemble_loss(members: Sequence[nn.Module], batches: Batches) -> float:
    """Return the cross entropy of the mean of all members' probabilities."""
    total = 0.0
    for images, labels in batches:
        mean = torch.stack([member(images).softmax(1) for member in members]).mean(0)
        total += float(F.nll_loss(mean.log(), labels, reduction="sum"))
    return total / sum(len(labels) for _, labels in batches)


def trained(corners: Sequence[nn.Module], way: Way, data: ImageData, setting: Setting, seed: int) -> Simplex:
    """Return the simplex of the corners and of vertices that are learned."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    joined = LearnedComplex(corners, vertices=setting.vertices, seed=seed)
    options: dict[str, Any] = {"lr": way.rate, "weight_decay": setting.weight_decay, "points": setting.points}
    module = SimplexModule(
        joined, volume_weight=way.volume_weight, epochs_per_vertex=setting.epochs, **options
    )
    loader: DataLoader[Any] = DataLoader(
        BatchIndexed(data.train_images, data.train_labels),
        batch_size=setting.batch_size,
        shuffle=True,
        collate_fn=as_it_is,
        generator=torch.Generator().manual_seed(seed),
    )
    trainer = lightning.Trainer(
        max_epochs=setting.epochs * setting.vertices,
        callbacks=[CosineAnnealing(setting.epochs * len(loader), setting.vertices)] if way.annealed else [],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer.fit(module, loader)
    (simplex,) = joined.eval().simplexes()
    return simplex


def sampled(
    simplexes: Sequence[Simplex], concentration: float, train: Batches, setting: Setting, seed: int
) -> list[nn.Module]:
    """Draw networks, as many of each simplex; batch norm is measured anew in each."""
    draw = torch.Generator().manual_seed(seed)
    prepare = sr.BatchNormReset(train, batches=2)
    count = setting.samples // len(simplexes)
    return [
        network
        for simplex in simplexes
        for network in simplex.networks(count, concentration=concentration, generator=draw, prepare=prepare)
    ]


@torch.no_grad()
def row(name: str, members: Sequence[nn.Module], tests: Batches) -> dict[str, Any]:
    """Return the error of the mean of all members' probabilities, and the mean of their own errors."""
    wrong, own, total = 0, 0, 0
    for images, labels in tests:
        outputs = torch.stack([member(images).softmax(1) for member in members])
        wrong += int((outputs.mean(0).argmax(1) != labels).sum())
        own += int((outputs.argmax(2) != labels).sum())
        total += len(labels)
    return {
        "ensemble": name,
        "networks": len(members),
        "error": wrong / total,
        "error of a member": own / total / len(members),
    }
