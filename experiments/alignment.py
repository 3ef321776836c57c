"""The methods that the experiments compare: each takes a pair of networks to the target's new state."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch import nn
from torch.nn import functional as F

from experiments.data import ImageData, InMemoryDataModule
from experiments.models import Architecture
from experiments.progress import StepProgress
from experiments.published import published_midpoint
from sinkhorn_rebasin import (
    BarrierMonitor,
    RandomPointLoss,
    RebasinModule,
    SinkhornRebasin,
    TemperatureAnnealing,
    WarmRestarts,
    discover_symmetry,
    geometric,
    weight_matching,
)
from sinkhorn_rebasin._typing import State

PUBLISHED_IMAGES, PUBLISHED_BATCH, PUBLISHED_EPOCHS = 9000, 1000, 20


@dataclass(frozen=True)
class Pair:
    """Two trained networks of one architecture and the data they learned from."""

    architecture: Architecture
    reference: nn.Module
    target: nn.Module
    data: ImageData
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Where a method puts the target, and what it took."""

    rebased: State
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How the learned methods train; ``published_python`` is the environment of the published implementation."""

    steps: int = 2000
    cycles: int = 5
    batch_size: int = 500
    learning_rate: float = 0.1
    temperatures: tuple[float, float] = (1.0, 0.3)
    monitor_images: int = 5000
    monitor_points: int = 11
    evaluate_every: int = 50
    published_python: Path | None = None


def naive(pair: Pair, settings: Settings) -> Outcome:
    """The target as it is."""
    return Outcome(pair.target.state_dict(), 0.0)


def matched(pair: Pair, settings: Settings) -> Outcome:
    """Weight matching from our own start."""
    return _matched(pair, "invariants")


def matched_from_identity(pair: Pair, settings: Settings) -> Outcome:
    """Weight matching as published (Ainsworth, Hayase and Srinivasa, 2023)."""
    return _matched(pair, "identity")


def _matched(pair: Pair, start: Literal["invariants", "identity"]) -> Outcome:
    started = time.perf_counter()
    spec = discover_symmetry(pair.reference, pair.data.train_images[:2])
    generator = torch.Generator().manual_seed(pair.seed)
    alignment = weight_matching(pair.reference, pair.target, spec, generator=generator, start=start)
    return Outcome(alignment.apply(pair.target), time.perf_counter() - started)


def ours(pair: Pair, settings: Settings) -> Outcome:
    """Sinkhorn re-basin: start from weight matching, annealed temperature, loss at random points of the middle.

    The scores that were best on held-out training images are kept.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(pair.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pair.seed)
        rebasin = SinkhornRebasin(
            pair.reference, pair.target, pair.data.train_images[:2], generator=generator
        )
        history = _fit(rebasin, pair, settings)
    seconds = time.perf_counter() - started
    return Outcome(rebasin.rebased_state(hard=True), seconds, {"history": history})


def ours_short(pair: Pair, settings: Settings) -> Outcome:
    """Ours with the images, batches and number of steps of the published implementation's example."""
    steps = len(range(0, PUBLISHED_IMAGES, PUBLISHED_BATCH)) * PUBLISHED_EPOCHS
    short = replace(
        settings, steps=steps, cycles=1, batch_size=PUBLISHED_BATCH, evaluate_every=steps // PUBLISHED_EPOCHS
    )
    return ours(replace(pair, data=_published_data(pair)), short)


def published(pair: Pair, settings: Settings) -> Outcome:
    """The published implementation's midpoint loss with the settings of its own example."""
    if settings.published_python is None:
        raise ValueError("Expected published_python for the published method but got None.")
    result = published_midpoint(
        settings.published_python,
        pair.architecture,
        pair.reference.state_dict(),
        pair.target.state_dict(),
        _published_data(pair).train_images,
        _published_data(pair).train_labels,
        seed=pair.seed,
        threads=torch.get_num_threads(),
    )
    seconds = result["training_seconds"] + result["evaluation_seconds"]
    notes = {
        "training_seconds": result["training_seconds"],
        "evaluation_seconds": result["evaluation_seconds"],
        "steps": len(result["losses"]),
    }
    return Outcome(result["rebased_state"], seconds, notes)


METHODS: dict[str, Callable[[Pair, Settings], Outcome]] = {
    "naive": naive,
    "weight matching": matched,
    "published": published,
    "ours, 180 steps": ours_short,
    "ours": ours,
}


def _published_data(pair: Pair) -> ImageData:
    images, labels = pair.data.train_images[:PUBLISHED_IMAGES], pair.data.train_labels[:PUBLISHED_IMAGES]
    return replace(pair.data, train_images=images, train_labels=labels)


def _fit(rebasin: SinkhornRebasin, pair: Pair, settings: Settings) -> list[dict[str, float]]:
    """Train the scores; return (step, barrier, midpoint loss) on held-out images at each evaluation."""
    module = InMemoryDataModule(
        pair.data, batch_size=min(settings.batch_size, len(pair.data.train_labels) // 4), seed=pair.seed
    )
    held_out = module.validation_indices[: settings.monitor_images]
    monitor = BarrierMonitor(
        [(pair.data.train_images[held_out], pair.data.train_labels[held_out])],
        points=settings.monitor_points,
        restore_best=True,
    )
    callbacks = [
        TemperatureAnnealing(geometric(*settings.temperatures), cycles=settings.cycles),
        monitor,
        WarmRestarts(monitor, settings.cycles),
    ]
    trainer = quiet_trainer(settings.steps, settings.evaluate_every, callbacks)
    learner = RebasinModule(rebasin, RandomPointLoss(F.cross_entropy), lr=settings.learning_rate)
    trainer.fit(learner, module.train_dataloader())
    return [
        {"step": step, "barrier": float(path.barrier), "midpoint_loss": float(path.midpoint_loss)}
        for step, path in monitor.history
    ]


def quiet_trainer(steps: int, epoch: int, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """A CPU Trainer with epochs of at most so many steps, a progress bar and nothing else on the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    return lightning.Trainer(
        max_steps=steps,
        limit_train_batches=epoch,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[*callbacks, StepProgress()],
    )
