"""A spring at every weight, as stiff as the weight was important."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.curvature import diagonal_fisher
from sinkhorn_rebasin.networks.copying import inputs_like
from sinkhorn_rebasin.networks.counting import check_rows
from sinkhorn_rebasin.training.continual.batches import training_batches
from sinkhorn_rebasin.training.continual.heads import Heads
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class ElasticWeightConsolidation(ContinualLearner):
    r"""Penalize leaving the weights of earlier tasks.

    EWC has a quadratic penalty for every earlier task.

    .. math:: \mathcal C(\text{batch}) + \tfrac{w}{2} \textstyle\sum_t \sum_i F_{t,i}\, (\theta_i - \theta_{t,i})^2

    F_t is the diagonal of the Fisher information after task t, from labels that the network itself draws. All springs
    of one weight are held as one of the same pull: stiffness :math:`\sum_t F_t`, rest position the mean of
    :math:`\theta_t` weighted by it; the penalties differ by a constant.

    Args:
        penalty: w; where :math:`w F` passes :math:`2 (1 + \text{momentum}) / \text{lr}` descent diverges, as it does
            at 100 on Rotated MNIST.
        fisher_samples: how many training samples the Fisher information is estimated from.
        options: those of :class:`ContinualLearner`, which come first.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (2017).
    """

    replays = False

    def __init__(
        self, *arguments: Any, penalty: float = 10.0, fisher_samples: int = 500, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.penalty, self.fisher_samples = penalty, fisher_samples
        self.stiffness, self.rest = nn.Module(), nn.Module()
        for place, (_, parameter) in enumerate(self._springs().items()):
            self.stiffness.register_buffer(str(place), torch.zeros_like(parameter))
            self.rest.register_buffer(str(place), parameter.detach().clone())

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion plus the quadratic penalty.

        The penalty is half the energy of the springs.
        """
        loss = self.task_loss(self(inputs), labels, self.task)
        return loss + 0.5 * self.penalty * self.energy() if self.task else loss

    def energy(self) -> Tensor:
        """Sum stiffness times squared distance from rest."""
        parts = zip(self._springs().values(), self.stiffness.buffers(), self.rest.buffers(), strict=True)
        # Infinite weights stay where they are, at no distance.
        return torch.stack([(k * (p - r).where(p != r, 0.0).square()).sum() for p, k, r in parts]).sum()

    def end_task(self) -> None:
        """Add the springs of the task just learned."""
        fisher = self.fisher()
        buffers = zip(self._springs().items(), self.stiffness.buffers(), self.rest.buffers(), strict=True)
        with torch.no_grad():
            for (name, parameter), stiffness, rest in buffers:
                total = stiffness + fisher[name]
                rest.copy_(
                    torch.where(total > 0, (stiffness * rest + fisher[name] * parameter) / total, parameter)
                )
                stiffness.copy_(total)

    def fisher(self) -> State:
        """Estimate the diagonal Fisher information.

        It is that at the network's weights, on the task's training samples.
        """
        shown = _OwnOutputs(self.network, self.heads, self.task)
        found = diagonal_fisher(
            shown, self._batches(), generator=torch.Generator(self.device).manual_seed(self.task)
        )
        return {name: found.diagonal[f"network.{name}"] for name in self._springs()}

    def _batches(self) -> Iterator[Any]:
        left = self.fisher_samples
        for inputs, labels in training_batches(self.trainer, self.read):
            check_rows(inputs, labels)
            yield inputs_like(inputs, lambda tensor, count=left: tensor[:count].clone()), None  # type: ignore[misc]
            left -= len(labels)
            if left <= 0:
                return

    def _springs(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}


class _OwnOutputs(nn.Module):
    """Show the outputs of one task."""

    def __init__(self, network: nn.Module, heads: Heads, task: int) -> None:
        super().__init__()
        self.network, self.heads, self.task = network, heads, task

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the outputs of the task."""
        shown: Tensor = self.heads(self.network(*inputs, **named), self.task)
        return shown
