"""Re-basin learning that keeps the old function between remembered samples, not only at them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.losses import residual_state
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.training.continual.memory import ReplayMemory
from sinkhorn_rebasin.training.continual.mixing import mixed
from sinkhorn_rebasin.training.continual.rebasin_learner import RebasinLearner


class DistillingRebasinLearner(RebasinLearner):
    r"""The segment of :class:`RebasinLearner`, held to the old network's function by distillation.

    .. math:: \mathcal C(\text{batch}) + w\, \mathcal C(\text{memory})
        + d\, \lVert f(m) - f_\theta(m) \rVert^2 + b\, \lVert f(n) - f_\theta(n) \rVert^2, \qquad
        f = f_{\frac12 (\pi_P(\theta) + \theta) + \delta}

    The end of the segment that stays, θ, is the teacher. It is asked not about the few remembered samples alone
    but about mixtures m of two of one task, and mixtures n of a remembered and a new sample (less than half of it
    new): a function is held down better between samples than at them. The residual is free to go as far as that
    allows: gradient descent with momentum, no clipping, a cosine to zero over the task when the Trainer knows its
    length. Scores start sharp, so that the midpoint starts as θ, and what is kept is the midpoint itself, where
    the loss was measured.

    Args:
        network, tasks, example_inputs: as for :class:`RebasinLearner`.
        distillation_weight, bridge_weight: d and b; squares are averaged over samples and outputs.
        sharpness: factor of the identity that the scores start from.
        options: those of :class:`RebasinLearner`.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> DistillingRebasinLearner(net, tasks=5, example_inputs=torch.randn(2, 4)).alpha
        0.5
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        example_inputs: ExampleInputs = None,
        *,
        distillation_weight: float = 1.0,
        bridge_weight: float = 1.0,
        sharpness: float = 10.0,
        residual_lr: float = 0.02,
        residual_momentum: float = 0.9,
        residual_decay: float = 0.0,
        alpha: float = 0.5,
        cosine: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            network,
            tasks,
            example_inputs,
            residual_lr=residual_lr,
            residual_momentum=residual_momentum,
            residual_decay=residual_decay,
            alpha=alpha,
            cosine=cosine,
            **options,
        )
        self.distillation_weight, self.bridge_weight = distillation_weight, bridge_weight
        self.sharpness = sharpness

    def begin_task(self) -> None:
        """As published, from sharper scores."""
        super().begin_task()
        with torch.no_grad():
            for scores in self.rebasin.scores.values():
                scores.mul_(self.sharpness)

    def after_backward(self) -> None:
        """Gradients are used as they are."""

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """The criterion in the first task, the distilled cost in all others."""
        replay = self.replay(labels)
        if not self.task or replay is None or self.memory is None:
            return self.task_loss(self(inputs), labels, self.task)
        state = residual_state(self.rebasin, self.residual_tensors())
        loss = self.task_loss(self.rebasin.run(state, inputs), labels, self.task)
        remembered = self.task_loss(self.rebasin.run(state, replay.inputs), replay.labels, replay.tasks)
        first, second = self.memory.draw_pairs(len(replay.labels), self.device)
        share = self._shares(self.memory, len(first.labels))
        within = self._drift(state, mixed(first.inputs, second.inputs, share), first.tasks)
        other = self.memory.draw(len(labels), self.device)
        bridge = self._drift(
            state, mixed(inputs, other.inputs, 0.5 * self._shares(self.memory, len(labels))), other.tasks
        )
        return (
            loss
            + self.cost.replay_weight * remembered
            + self.distillation_weight * within
            + self.bridge_weight * bridge
        )

    def _shares(self, memory: ReplayMemory, count: int) -> Tensor:
        return torch.rand(count, generator=memory.generator).to(self.device)

    def _drift(self, state: State, inputs: ExampleInputs, tasks: Tensor) -> Tensor:
        """How far the outputs of each sample's task are from the teacher's, squared."""
        with torch.no_grad(), batch_statistics(self.rebasin.reference, on=False):
            old = run_at(self.rebasin.reference, {}, inputs)
        change = self.heads(self.rebasin.run(state, inputs) - old, tasks, fill=0.0)
        return F.mse_loss(change, torch.zeros_like(change))
