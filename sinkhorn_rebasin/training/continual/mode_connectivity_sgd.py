"""The network that is linearly connected to the old one and to the one fine-tuned on the new task."""

from __future__ import annotations

import math
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.connectivity.interpolation import lerp
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.training.continual.batches import training_batches
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class ModeConnectivitySGD(ContinualLearner):
    r"""Search weights on low paths, MC-SGD.

    It fine-tunes on the task, then looks for weights on low lines to where one was and to where one came.

    .. math:: \bar w_t = \arg\min_w \mathbb E_{\lambda \sim U(0, 1)} \bigl[
        \mathcal C_{\text{memory}}(\bar w_{t-1} + \lambda (w - \bar w_{t-1}))
        + \mathcal C_t(\hat w_t + \lambda (w - \hat w_t)) \bigr]

    with :math:`\hat w_t` fine-tuned from :math:`\bar w_{t-1}`. The search starts halfway between the two and descends
    as the network does, a batch of the task and one of the memory at one λ each step.

    Args:
        connecting_epochs: passes over the task's training batches that the search makes, after the fit; None: as many
            as the fit made.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Mirzadeh, Farajtabar, Gorur, Pascanu, Ghasemzadeh, "Linear Mode Connectivity in Multitask and Continual
    Learning" (2021).
    """

    def __init__(self, *arguments: Any, connecting_epochs: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.connecting_epochs = connecting_epochs
        self.previous = frozen_copy(self.network)

    def begin_task(self) -> None:
        """Note where the task starts."""
        self.previous.load_state_dict(self.network.state_dict())

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion on the batch."""
        return self.task_loss(self(inputs), labels, self.task)

    def end_task(self) -> None:
        """Search, unless there is nothing to be connected to."""
        if not self.task:
            return
        before = self.previous.state_dict()
        found = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(lerp(parameter, before[name], 0.5))
        optimizer = self.network_optimizer()
        epochs = (
            max(1, self.trainer.current_epoch) if self.connecting_epochs is None else self.connecting_epochs
        )
        steps = epochs * self.trainer.num_training_batches
        falls = self.cosine and 0 < steps < math.inf
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps)) if falls else None
        passes = (training_batches(trainer, self.read) for trainer in repeat(self.trainer, epochs))
        for inputs, labels in chain.from_iterable(passes):
            optimizer.zero_grad()
            with torch.enable_grad():
                self.connecting_loss(before, found, inputs, labels).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()

    def connecting_loss(self, before: State, found: State, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the loss along the two ways.

        It is that of remembered samples on the way from ``before``, and of the batch on the way from ``found``.
        """
        replay = self.replay(labels)
        if replay is None or self.memory is None:
            return self.loss(inputs, labels)
        position = float(torch.rand((), generator=self.memory.generator))
        old = self.task_loss(self._between(before, position, replay.inputs), replay.labels, replay.tasks)
        return old + self.task_loss(self._between(found, position, inputs), labels, self.task)

    def _between(self, start: State, position: float, inputs: ExampleInputs) -> Tensor:
        state = {name: lerp(start[name], value, position) for name, value in self.network.named_parameters()}
        return scores_of(run_at(self.network, state, inputs))
