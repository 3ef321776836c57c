"""Ours: cycles of annealed soft permutations and scales, then a short fit of the scales at hard permutations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Recipe
from experiments.data import InMemoryDataModule
from experiments.reporting.progress import quiet_trainer
from sinkhorn_rebasin import (
    Alignment,
    BatchNormReset,
    LinearPath,
    RandomPointLoss,
    RepairAlongPath,
    RepairLoss,
    RescalingSpec,
    SinkhornRebasin,
    activation_matching,
    discover_rescaling,
    evaluate_path,
    weight_matching,
)
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule, TemperatureAnnealing, WarmRestarts

STATISTICS_IMAGES = 500


def align(pair: Pair, recipe: Recipe, *, rescale: bool = False, repaired: bool = False) -> Outcome:
    """Start from the best of some matching methods, and keep what is best of every cycle and of the end.

    What is better is decided on images that the alignment does not learn from: those the networks have not seen
    either, where the setting holds some out, else some of their training images.

    Args:
        rescale: learn scales and signs too.
        repaired: train, and decide what is better, for networks that REPAIR puts right.
    """
    _ = pair.spec  # discovered once for all methods, and not counted
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pair.seed)
        images = pair.data.train_images[:2]
        rescaling = discover_rescaling(pair.reference, pair.spec, images) if rescale else None
        name, start = _start(pair, recipe, rescaling, repaired)
        rebasin = SinkhornRebasin(
            pair.reference,
            pair.target,
            images,
            spec=pair.spec,
            rescale=rescaling or False,
            start=start,
            generator=pair.generator(),
        )
        history = _fit(rebasin, pair, recipe, repaired)
        if rebasin.log_scales:
            history += _close(rebasin, pair, recipe)
    seconds = time.perf_counter() - started
    notes = {"start": name, "history": history}
    return Outcome(rebasin.rebased_state(hard=True), seconds, rebasin.hard_permutations(), notes)


def _start(
    pair: Pair, recipe: Recipe, rescaling: RescalingSpec | None, repaired: bool
) -> tuple[str, Alignment]:
    """The alignment with the lowest loss along the path on held-out images, and its name."""
    networks = (pair.reference, pair.target, pair.spec)
    data = _trained(pair, recipe, recipe.start_images)
    matchings: dict[str, Callable[[], Alignment]] = {
        "weight matching": lambda: weight_matching(
            *networks, rescaling=rescaling, generator=pair.generator()
        ),
        "activation matching": lambda: activation_matching(*networks, data=data),
        "activation matching, uncentred": lambda: activation_matching(
            *networks, data=data, similarity="uncentred"
        ),
    }
    starts = {name: matchings[name]() for name in recipe.starts}
    end, held_out = pair.reference.state_dict(), _held_out(pair, recipe)

    def height(name: str) -> float:
        path = LinearPath(pair.reference, starts[name].apply(pair.target), end)
        prepare = (
            _repair(pair, recipe, path.module_at(0.0))
            if repaired
            else BatchNormReset(_trained(pair, recipe, STATISTICS_IMAGES))
        )
        found = evaluate_path(path, held_out, points=recipe.monitor_points, prepare=prepare)
        return float(found.losses.mean())

    best = min(starts, key=height)
    return best, starts[best]


def _fit(rebasin: SinkhornRebasin, pair: Pair, recipe: Recipe, repaired: bool) -> list[dict[str, float]]:
    """Anneal again and again from the best permutations so far, batch norm on the statistics of the mixture."""
    loss = RandomPointLoss(F.cross_entropy)
    if repaired:
        loss = RepairLoss(F.cross_entropy, _repair(pair, recipe, pair.target))
        monitor = _monitor(pair, recipe, repair=_trained(pair, recipe, STATISTICS_IMAGES))
    else:
        monitor = _monitor(pair, recipe, prepare=BatchNormReset(_trained(pair, recipe, STATISTICS_IMAGES)))
    callbacks: list[lightning.Callback] = [
        TemperatureAnnealing(geometric(*recipe.temperatures), cycles=recipe.cycles),
        monitor,
        WarmRestarts(monitor, recipe.cycles),
    ]
    module = RebasinModule(
        rebasin,
        loss,
        lr=recipe.learning_rate,
        scale_lr=recipe.scale_learning_rate,
        scale_decay=recipe.scale_decay,
    )
    trainer = quiet_trainer(
        recipe.steps, recipe.evaluate_every, callbacks, "annealing", bfloat16=recipe.bfloat16
    )
    trainer.fit(module, _data(pair, recipe).train_dataloader())
    return _readable(monitor, 0)


def _close(rebasin: SinkhornRebasin, pair: Pair, recipe: Recipe) -> list[dict[str, float]]:
    """Train the scales alone, at the permutations that stay, batch norm on the statistics between the networks'."""
    monitor = _monitor(pair, recipe)
    module = RebasinModule(
        rebasin,
        RandomPointLoss(F.cross_entropy, *recipe.closing_positions),
        hard=True,
        scale_lr=recipe.closing_learning_rate,
        scale_decay=recipe.scale_decay,
    )
    trainer = quiet_trainer(
        recipe.closing_steps, recipe.evaluate_every, [monitor], "closing", bfloat16=recipe.bfloat16
    )
    trainer.fit(module, _data(pair, recipe).train_dataloader())
    return _readable(monitor, recipe.steps)


def _data(pair: Pair, recipe: Recipe) -> InMemoryDataModule:
    size = min(recipe.batch_size, len(pair.data.train_labels) // 4)
    fraction = 0.1 if pair.unseen is None else 0.0
    return InMemoryDataModule(pair.data, batch_size=size, seed=pair.seed, validation_fraction=fraction)


def _monitor(pair: Pair, recipe: Recipe, **preparation: Any) -> BarrierMonitor:
    held_out = _held_out(pair, recipe)
    return BarrierMonitor(held_out, points=recipe.monitor_points, restore_best=True, **preparation)


def _repair(pair: Pair, recipe: Recipe, target: nn.Module) -> RepairAlongPath:
    return RepairAlongPath(pair.reference, target, pair.spec, _trained(pair, recipe, STATISTICS_IMAGES))


def _trained(pair: Pair, recipe: Recipe, count: int) -> list[tuple[Tensor, Tensor]]:
    """So many of the images that are trained on: to match activations, reset batch norm and do REPAIR with."""
    return _batches(pair.data.train_images, pair.data.train_labels, _data(pair, recipe).train_indices[:count])


def _held_out(pair: Pair, recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    if pair.unseen is not None:
        return _batches(*pair.unseen, torch.arange(min(recipe.monitor_images, len(pair.unseen[1]))))
    indices = _data(pair, recipe).validation_indices[: recipe.monitor_images]
    return _batches(pair.data.train_images, pair.data.train_labels, indices)


def _batches(images: Tensor, labels: Tensor, indices: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(images[part], labels[part]) for part in indices.split(STATISTICS_IMAGES)]


def _readable(monitor: BarrierMonitor, before: int) -> list[dict[str, Any]]:
    """(step, barrier, midpoint loss) on held-out images at each evaluation."""
    return [
        {"step": before + step, "barrier": path.barrier, "midpoint_loss": path.midpoint_loss}
        for step, path in monitor.history
    ]
