"""Replay of samples together with what the network said of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class DarkExperienceReplay(ContinualLearner):
    r"""Replay remembered outputs and labels, DER++.

    Outputs and labels are drawn independently.

    .. math:: \mathcal C(\text{batch}) + \alpha\, \lVert f(x') - z' \rVert^2 + \beta\, \mathcal C(f(x''), y'')

    with z' the outputs when the task of x' was learned (the published method keeps those of the step at which the
    sample entered the memory) and the square averaged over samples and the outputs of their task.

    Args:
        distillation_weight: α; 0.5 and β = 0.5 are the published choice for small images.
        replay_weight: β.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Buzzega, Boschini, Porrello, Abati, Calderara, "Dark Experience for General Continual Learning: a Strong,
    Simple Baseline" (2020).
    """

    def __init__(
        self, *arguments: Any, distillation_weight: float = 0.5, replay_weight: float = 0.5, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.distillation_weight, self.replay_weight = distillation_weight, replay_weight

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion plus both replay terms.

        Kept outputs count on one draw, labels on another.
        """
        loss = self.task_loss(self(inputs), labels, self.task)
        dark, labelled = self.replay(labels), self.replay(labels)
        if dark is None or labelled is None:
            return loss
        drift = self.heads.mean_square(self(dark.inputs) - dark.outputs, dark.tasks)
        loss = loss + self.distillation_weight * drift
        return loss + self.replay_weight * self.task_loss(
            self(labelled.inputs), labelled.labels, labelled.tasks
        )
