"""Steps that do not point against the memory's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.handover import gradients_of
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class AveragedGEM(ContinualLearner):
    r"""Project gradients off the memory's, A-GEM.

    Where the gradient g of a batch would raise the loss of the memory, its share along the gradient r of that loss is
    taken out.

    .. math:: \tilde g = g - \frac{\min(0,\, g^\top r)}{r^\top r}\, r

    Args: those of :class:`ContinualLearner`.

    Source: Chaudhry, Ranzato, Rohrbach, Elhoseiny, "Efficient Lifelong Learning with A-GEM" (2019).
    """

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the criterion on the batch.

        The memory acts on its gradient.
        """
        return self.task_loss(self(inputs), labels, self.task)

    def learn(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Step on a batch after reading the memory.

        The memory's gradient is taken first.
        """
        self._reference: list[Tensor] = []
        replay = self.replay(labels)
        if replay is not None:
            loss = self.task_loss(self(replay.inputs), replay.labels, replay.tasks)
            gradients = gradients_of(loss, self._parameters_learned())
            self._reference = [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(self._parameters_learned(), gradients, strict=True)
            ]
        return super().learn(inputs, labels)

    def after_backward(self) -> None:
        """Project the gradient of the batch."""
        if not self._reference:
            return
        parameters = self._parameters_learned()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter, gradient in zip(parameters, projected(own, self._reference), strict=True):
            parameter.grad = gradient

    def _parameters_learned(self) -> list[torch.nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]


def projected(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Tensor]:
    """Project a gradient so that the memory's loss holds.

    It is the closest one that does not point against the reference, tensor by tensor.

    Example:
        >>> projected([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 2.0])])
        [tensor([1., 0.])]
    """
    along = torch.stack([(g * r).sum() for g, r in zip(gradient, reference, strict=True)]).sum()
    size = torch.stack([(r * r).sum() for r in reference]).sum()
    share = torch.where(size > 0, along.clamp(max=0.0) / size, torch.zeros_like(size))
    return [g - share * r for g, r in zip(gradient, reference, strict=True)]
