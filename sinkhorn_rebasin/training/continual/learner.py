"""What every continual learner shares: tasks one after another, under any Lightning Trainer."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.losses import checked_loss
from sinkhorn_rebasin.metrics.continual import AccuracyMatrix
from sinkhorn_rebasin.networks.arguments import arguments_of
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.checkpoint import check_checkpoint
from sinkhorn_rebasin.networks.counting import counted_labels
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.lending import run_itself
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.training.continual.heads import Heads
from sinkhorn_rebasin.training.continual.memory import Replay, ReplayMemory
from sinkhorn_rebasin.training.continual.stepping import OptimizerFactory, StepsByHand
from sinkhorn_rebasin.training.continual.unlearned import ENOUGH, rates_of, recall_by_class, warn_if_unlearned


class ContinualLearner(StepsByHand):
    """Learn one task with every fit; subclasses say how.

    Each ``trainer.fit(learner, datamodule)`` that runs to its end teaches the next task; each
    ``trainer.test(learner, dataloaders)`` with one test dataloader per task fills the row of the accuracy matrix that
    belongs to the tasks learned so far. :func:`learn_tasks` does both for a list of datamodules. Weights, memory,
    accuracy matrix, the number of tasks learned and random states are in every checkpoint.

    Args:
        network: what learns; a copy of it, the caller's stays as it is.
        tasks: how many tasks there will be.
        classes: per task, its output columns; labels are columns too. Training and testing then show a sample only
            the outputs of its own task (task-incremental). None: all outputs, whatever the task (class- and
            domain-incremental).
        lr, momentum: of stochastic gradient descent on the network. The defaults are those of the figures in
            RESULTS.md. Squared outputs, which some methods keep, diverge where their curvature passes
            :math:`2 (1 + \text{momentum}) / \text{lr}`.
        optimizer: a function from the parameters to an optimiser, instead.
        cosine: whether the learning rate falls to zero along a cosine over the steps of each task.
        criterion: (outputs, labels) to the mean loss; outputs are the logits where the network returns more.
        per_class: how many samples of each class and task are remembered, where the method remembers samples.
        replay_batch: how many of them a step replays; None: as many as the batch has.
        seed: of the memory.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Attributes:
        network: the network as it is now, a plain nn.Module.
        memory: the replay memory, None where the method has none.
        learned: how many tasks have been learned.

    Raises:
        DataError: a number of tasks that does not fit the classes, more fits than tasks, or other test dataloaders
            than one per task.
        LossError: a loss that is no finite scalar; the learner and its rates are named.
        CheckpointError: a checkpoint of another learner, network or number of tasks is loaded.

    Warns:
        LearningWarning: after a fit, the last training samples are recognized no better than by a constant answer.
    """

    replays = True
    """Whether the method remembers samples."""

    learned: Tensor
    begun: Tensor

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        *,
        classes: Sequence[Sequence[int]] | None = None,
        lr: float = 0.02,
        momentum: float = 0.9,
        optimizer: OptimizerFactory | None = None,
        cosine: bool = True,
        criterion: Criterion = F.cross_entropy,
        per_class: int = 5,
        replay_batch: int | None = None,
        seed: int = 0,
        batch: BatchAdapter | None = None,
    ) -> None:
        if classes is not None and len(classes) != tasks:
            raise DataError(
                f"Expected classes for each of {tasks} tasks but got {len(classes)} sets of them."
            )
        super().__init__(network, lr, momentum, optimizer, cosine)
        self.heads = Heads(classes)
        self.memory = ReplayMemory(per_class, seed) if self.replays else None
        self.accuracy = AccuracyMatrix(tasks)
        self.accuracy.persistent(True)
        self.criterion = criterion
        self.batch = batch
        self.replay_batch = replay_batch
        self.register_buffer("learned", torch.zeros((), dtype=torch.long))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
        self.register_load_state_dict_pre_hook(check_checkpoint)
        self._stopped_at: Tensor | None = None
        self._recent: deque[tuple[ExampleInputs, Tensor]] = deque()

    @property
    def tasks(self) -> int:
        """Count the tasks."""
        return self.accuracy.tasks

    @property
    def task(self) -> int:
        """Return the current or next task, from 0."""
        return int(self.learned)

    def accuracy_matrix(self) -> Tensor:
        """Return accuracies by task learned and tested, (T, T).

        Rows are tasks learned, columns tasks tested. NaN where not tested.
        """
        return self.accuracy.accuracies()[1:].cpu()

    def initial_accuracies(self) -> Tensor:
        """Return the untrained network's accuracies, (T,); NaN where untested."""
        return self.accuracy.accuracies()[0].cpu()

    # What a method is.

    @abstractmethod
    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return a batch's loss, replay and penalties included."""

    def begin_task(self) -> None:
        """Prepare for :attr:`task`, once before its first batch."""

    def end_task(self) -> None:
        """Settle :attr:`task`, once its fit has ended."""

    def learn(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Take one step on a batch; return its loss."""
        loss = self.loss(inputs, labels)
        if isinstance(loss, Tensor) and loss.numel() == 1 and not bool(loss.isfinite()):
            raise LossError(
                f"Expected a finite loss but got {loss.item()} in task {self.task} of {type(self).__name__}, with "
                f"{self.rates()}: lower the rate, or check the batch and the criterion."
            )
        return self.descend(checked_loss(loss))

    def configure_optimizers(self) -> Any:
        """Make gradient descent, or what the factory makes."""
        return self.scheduled([self.network_optimizer()])

    def curriculum(
        self, datamodules: Sequence[lightning.LightningDataModule]
    ) -> list[tuple[int, lightning.LightningDataModule]]:
        """List the fits of :func:`learn_tasks`: (task, data) each."""
        return list(enumerate(datamodules))

    def rates(self) -> str:
        """Name the optimizers and the rates they began with."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        return rates_of(optimizers if isinstance(optimizers, list) else [optimizers])

    def advice(self) -> str:
        """Say what to do when a task was not learned."""
        return "Train for more epochs or at another rate."

    # What methods are made of.

    def task_loss(self, outputs: Tensor, labels: Tensor, tasks: Tensor | int) -> Tensor:
        """Return the criterion within each sample's task."""
        return self.heads.loss(self.criterion, outputs, labels, tasks)

    def read(self, batch: Any) -> tuple[ExampleInputs, Tensor]:
        """Return the inputs and labels of a batch."""
        return read_batch(batch, self.batch, network=self.network, criterion=self.criterion)

    def replay(self, labels: Tensor) -> Replay | None:
        """Draw earlier samples; None in the first task."""
        if self.memory is None or not len(self.memory):
            return None
        return self.memory.draw(self.replay_batch or len(labels), self.device)

    def forward(self, inputs: ExampleInputs) -> Any:
        """Return the network's output, or the logits in it."""
        return scores_of(run_itself(self.network, *arguments_of(self.network, inputs)))

    # What Lightning calls.

    def setup(self, stage: str) -> None:
        """Begin the next task, unless begun before a stop."""
        if stage == "fit" and self.trainer.world_size > 1:
            raise DataError(
                f"Expected one process, as memory and accuracies are kept in one, but got {self.trainer.world_size}; "
                "give the Trainer devices=1."
            )
        if stage != "fit" or bool(self.begun):
            return
        if self.task >= self.tasks:
            raise DataError(f"Expected at most {self.tasks} tasks but all of them have been learned.")
        self.begin_task()
        self.begun.fill_(True)

    def on_train_start(self) -> None:
        """Forget what a failed fit showed the memory.

        A fit that is gone on with keeps it.
        """
        super().on_train_start()
        self._recent.clear()
        if self.memory is not None and self.trainer.global_step == 0:
            self.memory.reopen()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Learn from a batch; first time, remember it."""
        inputs, labels = self.read(batch)
        if self.memory is not None and self.current_epoch == 0:
            self.memory.offer(inputs, counted_labels(labels, self.criterion))
        self.log("train_loss", self.learn(inputs, labels), prog_bar=True, batch_size=len(labels))
        self._recent.append((inputs, labels))
        while len(self._recent) > 1 and sum(len(labels) for _, labels in list(self._recent)[1:]) >= ENOUGH:
            self._recent.popleft()

    def on_train_end(self) -> None:
        """Settle the task that was learned."""
        if self.trainer.interrupted or self.trainer.num_training_batches == 0:
            return
        self._stopped_at = None
        self.end_task()
        if self.memory is not None:
            self.memory.close(self.task, self.evaluated)
        self._judge()
        self.learned += 1
        self.begun.fill_(False)

    def _judge(self) -> None:
        """Warn when the task's last samples are not recognized."""
        counted = [(inputs, counted_labels(labels, self.criterion)) for inputs, labels in self._recent]
        self._recent.clear()
        judged = [pair for pair in counted if pair[1].ndim == 1 and not pair[1].is_floating_point()]
        if judged:
            outputs = [self.heads(self.evaluated(inputs), self.task) for inputs, _ in judged]
            predictions = torch.cat([output.argmax(dim=1) for output in outputs])
            recall = recall_by_class(predictions, torch.cat([labels for _, labels in judged]))
            warn_if_unlearned(recall, type(self).__name__, self.task, self.rates(), self.advice())

    def on_fit_end(self) -> None:
        """Settle a task stopped after its last step."""
        if bool(self.begun) and self._stopped_at is not None:
            # A loader was set up and drew from it.
            torch.set_rng_state(self._stopped_at)
            self.on_train_end()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note where the stopped run was."""
        super().on_load_checkpoint(checkpoint)
        self._stopped_at = checkpoint["random_state"].cpu() if "random_state" in checkpoint else None

    @torch.no_grad()
    def evaluated(self, inputs: ExampleInputs) -> Tensor:
        """Return eval-mode outputs and keep the mode."""
        with batch_statistics(self.network, on=False):
            return scores_of(run_at(self.network, {}, move_to(inputs, self.device)))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log ``val_accuracy`` on the current task."""
        inputs, labels = self.read(batch)
        labels = counted_labels(labels, self.criterion)
        hits = self.heads(self(inputs), min(self.task, self.tasks - 1)).argmax(dim=1) == labels
        if counted := int((labels >= 0).sum()):
            self.log("val_accuracy", hits.sum() / counted, prog_bar=True, batch_size=counted)

    def on_test_epoch_start(self) -> None:
        """Clear the row of the tasks learned so far."""
        loaders = self.trainer.num_test_batches
        if len(loaders) != self.tasks:
            raise DataError(
                f"Expected one test dataloader for each of {self.tasks} tasks, in their order, but got "
                f"{len(loaders)}."
            )
        self.accuracy.forget(self.task)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the hits of one batch."""
        inputs, labels = self.read(batch)
        outputs = self.heads(self(inputs), dataloader_idx)
        labels = counted_labels(labels, self.criterion)
        self.accuracy.update(outputs, labels, self.task, dataloader_idx)
