"""All tasks at once: what no continual learner is expected to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.networks.execution import split_batch
from sinkhorn_rebasin.training.continual.all_tasks import AllTasks
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class JointTraining(ContinualLearner):
    """Trains on the data of all tasks in a single fit, each step on a batch of every task: the upper bound.

    The accuracy matrix has its last row alone. The mean loss of the tasks' batches is minimised.

    Args: those of :class:`ContinualLearner`.
    """

    replays = False

    def curriculum(
        self, datamodules: Sequence[lightning.LightningDataModule]
    ) -> list[tuple[int, lightning.LightningDataModule]]:
        """One fit, on everything."""
        return [(self.tasks - 1, AllTasks(datamodules))]

    def begin_task(self) -> None:
        """There is only one fit, the last."""
        self.learned.fill_(self.tasks - 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Learn from one batch of every task."""
        losses = []
        for task, own in enumerate(batch):
            inputs, labels = split_batch(own)
            losses.append(self.task_loss(self(inputs), labels, task))
        self.log("train_loss", self.descend(torch.stack(losses).mean()), prog_bar=True, batch_size=1)

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Not used: a step has a batch of every task."""
        raise LossError("Expected JointTraining to be fitted on AllTasks but got the batch of a single task.")
