"""Learning on with samples of earlier tasks among the new ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class ExperienceReplay(ContinualLearner):
    r"""Add the loss of remembered samples.

    .. math:: \mathcal C(\text{batch}) + w\, \mathcal C(\text{memory})

    Args:
        replay_weight: w.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato, "On Tiny Episodic Memories in Continual
    Learning" (2019).
    """

    def __init__(self, *arguments: Any, replay_weight: float = 1.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.replay_weight = replay_weight

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion on batch and memory.

        There are as many remembered samples as in the batch.
        """
        loss = self.task_loss(self(inputs), labels, self.task)
        replay = self.replay(labels)
        if replay is None:
            return loss
        return loss + self.replay_weight * self.task_loss(self(replay.inputs), replay.labels, replay.tasks)
