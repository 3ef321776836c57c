"""What all continual learners share."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual import ContinualLearner, FineTuning
from tests.training.continual.tasks import LEARNERS, net, tasks, trainers


class LearningRates(lightning.Callback):
    """Keeps the learning rate that every step is made with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Keep that of the last optimiser."""
        self.seen.append(trainer.optimizers[-1].param_groups[0]["lr"])


@pytest.mark.parametrize("name", ["fine-tuning", "stable", "a-gem", "replay", "rebasin", "distilling"])
def test_on_a_cosine_the_learning_rate_falls_to_zero_over_every_task(name: str, tmp_path: Path) -> None:
    learner: ContinualLearner = LEARNERS[name](net(), 2, cosine=True)
    for task in tasks(2):
        rates = LearningRates()
        trainers(tmp_path, rates)().fit(learner, task)
        first, steps = rates.seen[0], len(rates.seen)
        assert steps == 12
        expected = [first * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        assert rates.seen == pytest.approx(expected)


@pytest.mark.parametrize("name", ["fine-tuning", "rebasin"])
def test_without_it_the_learning_rate_stays(name: str, tmp_path: Path) -> None:
    learner: ContinualLearner = LEARNERS[name](net(), 2, cosine=False)
    for task in tasks(2):
        rates = LearningRates()
        trainers(tmp_path, rates)().fit(learner, task)
        assert len(set(rates.seen)) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_several_processes_are_refused(begun: bool) -> None:
    learner = FineTuning(net(), 2)
    learner.begun.fill_(begun)
    learner._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"one process.* but got 2"):
        learner.setup("fit")
