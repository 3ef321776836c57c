"""Plain training that ends in wide minima."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class StableSGD(ContinualLearner):
    """Fine-tune with a rate that falls by task.

    It is to be used with small batches and dropout.

    The rate of task t is ``lr * decay ** t``; there is no momentum and no memory.

    Args:
        decay: by how much the learning rate falls with each task.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Mirzadeh, Farajtabar, Pascanu, Ghasemzadeh, "Understanding the Role of Training Regimes in Continual
    Learning" (2020).
    """

    replays = False

    def __init__(
        self, *arguments: Any, decay: float = 0.8, lr: float = 0.1, cosine: bool = False, **options: Any
    ) -> None:
        super().__init__(*arguments, lr=lr, momentum=0.0, cosine=cosine, **options)
        self.decay = decay

    def configure_optimizers(self) -> Any:
        """Make gradient descent at the task's rate."""
        optimizer = self.network_optimizer()
        for group in optimizer.param_groups:
            group["lr"] *= self.decay**self.task
        return self.scheduled([optimizer])

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion on the batch."""
        return self.task_loss(self(inputs), labels, self.task)
