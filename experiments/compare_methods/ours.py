"""Ours: cycles of annealed soft permutations and scales, then a short fit of the scales at hard permutations."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Recipe
from experiments.data import InMemoryDataModule
from experiments.progress import quiet_trainer
from sinkhorn_rebasin import (
    Alignment,
    BarrierMonitor,
    BatchNormReset,
    LinearPath,
    RandomPointLoss,
    RebasinModule,
    RescalingSpec,
    SinkhornRebasin,
    TemperatureAnnealing,
    WarmRestarts,
    activation_matching,
    discover_rescaling,
    evaluate_path,
    geometric,
    weight_matching,
)

RESET_IMAGES = 500


def align(pair: Pair, recipe: Recipe, *, rescale: bool) -> Outcome:
    """Start from the better of weight and activation matching, and keep what is best of every cycle and of the end.

    What is better is decided on held-out training images.
    """
    _ = pair.spec  # discovered once for all methods, and not counted
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pair.seed)
        images = pair.data.train_images[:2]
        rescaling = discover_rescaling(pair.reference, pair.spec, images) if rescale else None
        name, start = _start(pair, recipe, rescaling)
        rebasin = SinkhornRebasin(
            pair.reference,
            pair.target,
            images,
            spec=pair.spec,
            rescale=rescaling or False,
            init=start,
            generator=pair.generator(),
        )
        history = _fit(rebasin, pair, recipe)
        if rebasin.log_scales:
            history += _close(rebasin, pair, recipe)
    seconds = time.perf_counter() - started
    notes = {"start": name, "history": history}
    return Outcome(rebasin.rebased_state(hard=True), seconds, rebasin.hard_permutations(), notes)


def _start(pair: Pair, recipe: Recipe, rescaling: RescalingSpec | None) -> tuple[str, Alignment]:
    """The alignment with the lowest loss along the path on held-out images, and its name."""
    networks = (pair.reference, pair.target, pair.spec)
    starts = {
        "weight matching": weight_matching(*networks, rescaling=rescaling, generator=pair.generator()),
        "activation matching": activation_matching(*networks, data=pair.batches(recipe.start_images, 500)),
    }
    end, held_out = pair.reference.state_dict(), _held_out(pair, recipe)

    def height(name: str) -> float:
        path = LinearPath(pair.reference, starts[name].apply(pair.target), end)
        found = evaluate_path(path, held_out, points=recipe.monitor_points, prepare=_reset(pair))
        return float(found.losses.mean())

    best = min(starts, key=height)
    return best, starts[best]


def _fit(rebasin: SinkhornRebasin, pair: Pair, recipe: Recipe) -> list[dict[str, float]]:
    """Anneal again and again from the best permutations so far, batch norm on the statistics of the mixture."""
    monitor = _monitor(pair, recipe, prepare=_reset(pair))
    callbacks: list[lightning.Callback] = [
        TemperatureAnnealing(geometric(*recipe.temperatures), cycles=recipe.cycles),
        monitor,
        WarmRestarts(monitor, recipe.cycles),
    ]
    module = RebasinModule(
        rebasin,
        RandomPointLoss(F.cross_entropy),
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
        RandomPointLoss(F.cross_entropy),
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
    return InMemoryDataModule(pair.data, batch_size=size, seed=pair.seed)


def _monitor(pair: Pair, recipe: Recipe, prepare: BatchNormReset | None = None) -> BarrierMonitor:
    held_out = _held_out(pair, recipe)
    return BarrierMonitor(held_out, points=recipe.monitor_points, prepare=prepare, restore_best=True)


def _reset(pair: Pair) -> BatchNormReset:
    """Does nothing to networks without batch norm."""
    return BatchNormReset(pair.batches(RESET_IMAGES, RESET_IMAGES))


def _held_out(pair: Pair, recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    held_out = _data(pair, recipe).validation_indices[: recipe.monitor_images]
    return [(pair.data.train_images[part], pair.data.train_labels[part]) for part in held_out.split(500)]


def _readable(monitor: BarrierMonitor, before: int) -> list[dict[str, Any]]:
    """(step, barrier, midpoint loss) on held-out images at each evaluation."""
    return [
        {"step": before + step, "barrier": path.barrier, "midpoint_loss": path.midpoint_loss}
        for step, path in monitor.history
    ]
