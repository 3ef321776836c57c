"""Optimizer steps on one task's loss, made by hand, and the learning rate's cosine over the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.training.random_state import KeepsRandomState

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class StepsByHand(KeepsRandomState):
    """Step a network's optimizers as a method needs.

    Lightning's own optimization takes one loss and one step for a batch. Methods of continual learning take several
    steps, use several optimizers, or change gradients in between.

    Args:
        network: what learns; a copy of it, in training mode.
        lr, momentum: of stochastic gradient descent on the network.
        optimizer: a function from the parameters to an optimizer, instead.
        cosine: whether the learning rate falls to zero along a cosine over the steps of each task.
    """

    steps_of_a_batch = 1
    """How many steps the method makes with a batch."""

    def __init__(
        self, network: nn.Module, lr: float, momentum: float, optimizer: OptimizerFactory | None, cosine: bool
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = standalone_copy(network).train()
        self.lr, self.momentum = lr, momentum
        self.optimizer_factory, self.cosine = optimizer, cosine

    def network_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer of the network's own parameters."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if self.optimizer_factory is not None:
            return self.optimizer_factory(parameters)
        return torch.optim.SGD(parameters, self.lr, momentum=self.momentum)

    def scheduled(self, optimizers: list[torch.optim.Optimizer]) -> Any:
        """Put the last optimizer on a cosine, if asked."""
        steps = self._steps_of_a_task(len(optimizers)) if self.cosine else None
        if steps is None:
            return optimizers
        return optimizers, [torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[-1], steps)]

    def _steps_of_a_task(self, optimizers: int) -> int | None:
        """Count a task's optimizer steps; None if unknown."""
        steps = self.trainer.estimated_stepping_batches * self.steps_of_a_batch
        if self.trainer.max_steps > 0:
            most = math.ceil(self.trainer.max_steps / optimizers)  # Lightning counts those of all optimisers.
            steps = min(steps, most) if steps > 0 else most
        return int(steps) if 0 < steps < math.inf else None

    def descend(self, loss: Tensor) -> Tensor:
        """Step all optimizers, and the learning rate's schedule."""
        optimizers = self.optimizers()
        chosen = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in chosen:
            optimizer.zero_grad()
        self.manual_backward(loss)
        self.after_backward()
        for optimizer in chosen:
            optimizer.step()
        schedule = self.lr_schedulers()
        if isinstance(schedule, torch.optim.lr_scheduler.LRScheduler):
            schedule.step()
        return loss.detach()

    def after_backward(self) -> None:
        """Change gradients before the step."""
