"""Learning on as if there were no earlier tasks."""

from __future__ import annotations

from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class FineTuning(ContinualLearner):
    """Train on each task alone.

    This shows what forgetting looks like when nothing is done about it.

    Args: those of :class:`ContinualLearner`.

    Example:
        >>> from torch import nn
        >>> learner = FineTuning(nn.Linear(4, 3), tasks=2)
        >>> learner.task, learner.tasks
        (0, 2)
    """

    replays = False

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion on the batch."""
        return self.task_loss(self(inputs), labels, self.task)
