"""Small tasks in a row, and short fits on them, shared by the tests of continual learners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.training.continual import (
    AveragedGEM,
    ContinualLearner,
    DarkExperienceReplay,
    DistillingRebasinLearner,
    ElasticWeightConsolidation,
    ExperienceReplay,
    FineTuning,
    JointTraining,
    LearningWithoutForgetting,
    ModeConnectivitySGD,
    RebasinLearner,
    StableSGD,
)
from tests.training.fitting import trainer

EXAMPLE = torch.zeros(2, 4)

LEARNERS: dict[str, Callable[..., ContinualLearner]] = {
    "a-gem": AveragedGEM,
    "der++": DarkExperienceReplay,
    "distilling": lambda *a, **o: DistillingRebasinLearner(*a, example_inputs=EXAMPLE, **o),
    "ewc": lambda *a, **o: ElasticWeightConsolidation(*a, fisher_samples=20, **o),
    "fine-tuning": FineTuning,
    "joint": JointTraining,
    "lwf": LearningWithoutForgetting,
    "mc-sgd": ModeConnectivitySGD,
    "rebasin": lambda *a, **o: RebasinLearner(*a, example_inputs=EXAMPLE, **o),
    "replay": ExperienceReplay,
    "stable": StableSGD,
}


class Task(lightning.LightningDataModule):
    """Points in four dimensions whose three classes are turned a little further with every task."""

    def __init__(self, number: int, samples: int = 48, first_class: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(number)
        angle = torch.tensor(0.4 * number)
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
        points = torch.randn(2 * samples, 4, generator=generator)
        labels = (points @ turn)[:, :3].argmax(dim=1) + first_class
        self.train_set = TensorDataset(points[:samples], labels[:samples])
        self.test_set = TensorDataset(points[samples:], labels[samples:])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_set, 8, shuffle=True)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, 16)


def tasks(count: int) -> list[Task]:
    """The tasks of one run."""
    return [Task(number) for number in range(count)]


def net(outputs: int = 3, seed: int = 0, norm: bool = False) -> nn.Sequential:
    """One hidden layer, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(12)] if norm else []
        return nn.Sequential(nn.Linear(4, 12), *middle, nn.ReLU(), nn.Linear(12, outputs))


class Interruption(Exception):
    """What stops a run, as a machine that goes down would."""


class StopsAt(lightning.Callback):
    """Stops a run at the beginning of an epoch of a task."""

    def __init__(self, task: int, epoch: int) -> None:
        self.task, self.epoch = task, epoch

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop."""
        assert isinstance(pl_module, ContinualLearner)
        if (pl_module.task, trainer.current_epoch) == (self.task, self.epoch):
            raise Interruption


class StopsAtHook(lightning.Callback):
    """Stops a run in a hook of Lightning's, once so many tasks have been learned."""

    def __init__(self, hook: str, learned: int) -> None:
        self.learned = learned
        setattr(self, hook, self.stop)

    def stop(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop."""
        assert isinstance(pl_module, ContinualLearner)
        if pl_module.task == self.learned:
            raise Interruption


def trainers(
    folder: Path, *callbacks: lightning.Callback, epochs: int = 2
) -> Callable[[], lightning.Trainer]:
    """Makes quiet Trainers."""
    return lambda: trainer(folder, max_epochs=epochs, callbacks=list(callbacks))


def weights_of(learner: ContinualLearner) -> dict[str, Tensor]:
    """A copy of the network's tensors."""
    return {name: value.clone() for name, value in learner.network.state_dict().items()}
