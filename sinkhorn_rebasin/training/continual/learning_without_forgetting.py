"""The old network's answers to the new task's inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class LearningWithoutForgetting(ContinualLearner):
    r"""Distill the old network's answers, LwF.

    On the new inputs its softened answers are kept, for the outputs of every earlier task.

    .. math:: \mathcal C(\text{batch}) + \frac{w}{T-1} \textstyle\sum_{t<T}
        H\bigl(\mathrm{softmax}(f_\mathrm{old}(x)_t / \tau),\, \mathrm{softmax}(f(x)_t / \tau)\bigr)

    Where tasks share their outputs there is one such term, over the outputs whose classes earlier tasks had. No
    sample is remembered.

    Args:
        distillation_weight: w.
        softness: τ, 2 as published.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Li, Hoiem, "Learning without Forgetting" (2016).
    """

    replays = False

    def __init__(
        self, *arguments: Any, distillation_weight: float = 1.0, softness: float = 2.0, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.distillation_weight, self.softness = distillation_weight, softness
        self.teacher = frozen_copy(self.network)
        self.known = torch.empty(0, dtype=torch.long)
        self._met = torch.empty(0, dtype=torch.long)

    def begin_task(self) -> None:
        """Make the network as it is the teacher."""
        self.teacher.load_state_dict(self.network.state_dict())

    def end_task(self) -> None:
        """Note the classes that the next teacher knows.

        They are those met so far.
        """
        self.known = self._met

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion and the distance from the teacher.

        The distance is that of the answers on the batch.
        """
        outputs = self(inputs)
        loss = self.task_loss(outputs, labels, self.task)
        self._met = torch.cat([self._met, labels.cpu().long()]).unique()
        if not self.task:
            return loss
        with torch.no_grad(), batch_statistics(self.teacher, on=False):
            old = scores_of(run_at(self.teacher, {}, inputs))
        terms = [
            F.cross_entropy(outputs[:, own] / self.softness, (old[:, own] / self.softness).softmax(dim=1))
            for own in self._earlier()
        ]
        return loss + self.distillation_weight * torch.stack(terms).mean()

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the classes met, for the state dict."""
        return {"known": self.known, "met": self._met}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take the classes that a state dict kept."""
        self.known, self._met = state["known"].cpu(), state["met"].cpu()

    def _earlier(self) -> list[Tensor]:
        """List the output columns of every earlier task.

        Where tasks share their outputs, these are the columns of all of them.
        """
        if self.heads.shared:
            return [self.known.to(self.device)]
        return [self.heads.visible[task].nonzero().flatten() for task in range(self.task)]
