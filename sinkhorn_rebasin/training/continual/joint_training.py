"""All tasks at once: what no continual learner is expected to beat."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses import checked_loss
from sinkhorn_rebasin.networks.counting import check_rows
from sinkhorn_rebasin.training.continual.all_tasks import AllTasks
from sinkhorn_rebasin.training.continual.learner import ContinualLearner
from sinkhorn_rebasin.training.continual.memory import join, select


class JointTraining(ContinualLearner):
    """Train on the data of all tasks at once.

    There is a single fit, on batches mixed from all tasks: the upper bound.

    A batch of every task, mixed, makes as many steps as there are tasks, so that all learners take equally many. The
    accuracy matrix has its last row alone.

    Args: those of :class:`ContinualLearner`.
    """

    replays = False

    def __init__(self, network: nn.Module, tasks: int, **options: Any) -> None:
        super().__init__(network, tasks, **options)
        self.steps_of_a_batch = tasks

    def curriculum(
        self, datamodules: Sequence[lightning.LightningDataModule]
    ) -> list[tuple[int, lightning.LightningDataModule]]:
        """List one fit on everything."""
        return [(self.tasks - 1, AllTasks(datamodules))]

    def begin_task(self) -> None:
        """Learn all tasks in one fit, the last."""
        self.learned.fill_(self.tasks - 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Mix one batch of every task.

        The learner takes as many steps on the mixture.
        """
        samples = reduce(join, (_samples(*self.read(own), task) for task, own in enumerate(batch)))
        order = torch.randperm(len(samples["labels"]))
        for indices in order.chunk(len(batch)):
            own = select(samples, indices.to(samples["labels"].device))
            loss = self.task_loss(self(own["inputs"]), own["labels"], own["tasks"])
            self.log("train_loss", self.descend(checked_loss(loss)), prog_bar=True, batch_size=len(indices))

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Raise LossError: steps have samples of all tasks."""
        raise LossError("Expected JointTraining to be fitted on AllTasks but got the batch of a single task.")


def _samples(inputs: ExampleInputs, labels: Tensor, task: int) -> dict[str, Any]:
    check_rows(inputs, labels)
    return {"inputs": inputs, "labels": labels, "tasks": torch.full_like(labels, task, dtype=torch.long)}
