"""Re-basin learning that keeps the old function between remembered samples, not only at them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.losses import residual_state
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.training.continual.memory import ReplayMemory, select
from sinkhorn_rebasin.training.continual.mixing import mixed
from sinkhorn_rebasin.training.continual.rebasin_learner import RebasinLearner

DEFAULTS: dict[str, Any] = {
    **{"scores_lr": 0.01, "residual_lr": 0.004, "residual_decay": 0.0, "alpha": 0.5},
    **{"lr": 0.004, "cosine": True},
}
"""Options of :class:`RebasinLearner` that begin elsewhere where the old function is distilled."""


class DistillingRebasinLearner(RebasinLearner):
    r"""Distill the old network along the re-basin segment.

    It is the segment of :class:`RebasinLearner`, held to the old network's function.

    .. math:: \mathcal C(\text{batch}) + h \bigl( w\, \mathcal C(\text{memory}) + k\, \lVert f(x) - z \rVert^2
        + d\, \lVert f(m) - f_\theta(m) \rVert^2 + b\, \lVert f(n) - f_\theta(n) \rVert^2 \bigr), \qquad
        f = f_{\frac12 (\pi_P(\theta) + \theta) + \delta}

    The replayed samples x keep the outputs z of when their task was learned, as in DER++. Besides, the end of the
    segment that stays, θ, is asked about mixtures m of two remembered samples of one task, and about mixtures n of a
    remembered and a new sample (less than half of it new, of a class that θ knows): a function is held down better
    between samples than at them alone. The residual is free to go as far as that allows: AdamW in place of clipped
    gradient descent, as squared outputs make plain descent unstable, and a cosine to zero over the task when the
    Trainer knows its length. Scores start sharp, so that the midpoint starts as θ, and what is kept is the midpoint
    itself, where the loss was measured.

    Where tasks share their outputs but bring new classes, θ is not asked about outputs that it has not learned, and h
    falls from one to ``new_class_factor`` with the share of new classes in the batch: what is held leaves room for
    them.

    Args:
        network, tasks, example_inputs: as for :class:`RebasinLearner`.
        kept_weight, distillation_weight, bridge_weight: k, d and b; squares are averaged over samples and the outputs
            of their task, those of classes that θ knows.
        new_class_factor: what h is in a batch of new classes alone.
        sharpness: factor of the identity that the scores start from.
        options: those of :class:`RebasinLearner`, whose defaults are ``scores_lr=0.01``, ``residual_lr=0.004``,
            ``residual_decay=0.0``, ``alpha=0.5``, ``lr=0.004`` and ``cosine=True`` here. All rates are AdamW's, in
            the first task too: after gradient descent at 0.05 outputs are so large that holding them leaves no room
            for new classes. ``momentum`` is AdamW's first beta.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> DistillingRebasinLearner(net, tasks=5, example_inputs=torch.randn(2, 4)).alpha
        0.5

    Source of the kept outputs: Buzzega et al., "Dark Experience for General Continual Learning" (2020).
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        example_inputs: ExampleInputs = None,
        *,
        kept_weight: float = 1.0,
        distillation_weight: float = 1.0,
        bridge_weight: float = 1.0,
        new_class_factor: float = 0.5,
        sharpness: float = 20.0,
        **options: Any,
    ) -> None:
        super().__init__(network, tasks, example_inputs, **{**DEFAULTS, **options})
        self.kept_weight, self.sharpness = kept_weight, sharpness
        self.distillation_weight, self.bridge_weight = distillation_weight, bridge_weight
        self.new_class_factor = new_class_factor

    def begin_task(self) -> None:
        """Start from sharper scores, as published."""
        super().begin_task()
        with torch.no_grad():
            for scores in self.rebasin.scores.values():
                scores.mul_(self.sharpness)

    def network_optimizer(self) -> torch.optim.Optimizer:
        """Make AdamW for the first task, or what the factory makes."""
        if self.optimizer_factory is not None:
            return super().network_optimizer()
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        betas, eps = (self.momentum, 0.999), adam_eps(parameters)
        return torch.optim.AdamW(parameters, self.lr, betas, eps, weight_decay=0.0)

    def advice(self) -> str:
        """Say what to do when a task was not learned."""
        rate = "residual_lr" if self.task else "lr"
        return f"Train for more epochs, raise {rate}, or lower new_class_factor."

    def residual_optimizer(self) -> torch.optim.Optimizer:
        """Make AdamW for the residual."""
        parameters = self.residual_parameters()
        return torch.optim.AdamW(
            parameters, self.residual_lr, weight_decay=self.residual_decay, eps=adam_eps(parameters)
        )

    def after_backward(self) -> None:
        """Fill in sparse gradients, which AdamW does not take."""
        for parameter in self.network.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the distilled cost of a batch.

        In the first task it is the criterion alone.
        """
        replay = self.replay(labels)
        if not self.task or replay is None or self.memory is None:
            return self.task_loss(self(inputs), labels, self.task)
        state = residual_state(self.rebasin, self.residual_tensors())
        loss = self.task_loss(self.rebasin.run(state, inputs), labels, self.task)
        outputs = scores_of(self.rebasin.run(state, replay.inputs))
        remembered = self.task_loss(outputs, replay.labels, replay.tasks)
        kept = self.heads.mean_square(outputs - replay.outputs, replay.tasks)
        first, second = self.memory.draw_pairs(len(replay.labels), self.device)
        share = self._shares(self.memory, len(first.labels))
        within = self._drift(state, mixed(first.inputs, second.inputs, share), first.tasks)
        known = self._known(labels, self.memory)
        bridge = self._bridge(state, inputs, known, self.memory)
        factor = self.new_class_factor + (1 - self.new_class_factor) * known.float().mean()
        return (
            loss
            + factor * self.cost.replay_weight * remembered
            + factor * self.kept_weight * kept
            + factor * self.distillation_weight * within
            + factor * self.bridge_weight * bridge
        )

    def _known(self, labels: Tensor, memory: ReplayMemory) -> Tensor:
        """Mark samples of classes the teacher knows.

        With heads of their own, tasks do not meet.
        """
        if not self.heads.shared:
            return torch.ones_like(labels, dtype=torch.bool)
        return torch.isin(labels, memory.classes().to(self.device))

    def _bridge(self, state: State, inputs: ExampleInputs, known: Tensor, memory: ReplayMemory) -> Tensor:
        """Return the drift between old and new samples.

        New samples of classes that the teacher lacks are left out.
        """
        other = memory.draw(len(known), self.device)
        between = mixed(inputs, other.inputs, 0.5 * self._shares(memory, len(known)))
        if not known.any():
            return torch.zeros((), device=self.device)
        if known.all():
            return self._drift(state, between, other.tasks)
        kept = select({"inputs": between}, known)["inputs"]
        return self._drift(state, kept, other.tasks[known]) * known.float().mean()

    def _shares(self, memory: ReplayMemory, count: int) -> Tensor:
        return torch.rand(count, generator=memory.generator).to(self.device)

    def _drift(self, state: State, inputs: ExampleInputs, tasks: Tensor) -> Tensor:
        """Return the squared distance from the teacher's outputs.

        They are the outputs of each sample's task, where the teacher knows them.
        """
        with torch.no_grad(), batch_statistics(self.rebasin.reference, on=False):
            old = scores_of(run_at(self.rebasin.reference, {}, inputs))
        change = scores_of(self.rebasin.run(state, inputs)) - old
        if self.heads.shared and self.memory is not None:
            change = change[:, self.memory.classes().to(change.device)]
        return self.heads.mean_square(change, tasks)


def adam_eps(parameters: Iterable[Tensor], decay: float = 0.999) -> float:
    r"""Return an eps that bounds Adam's steps.

    The bound is that of the parameters' type. Averages of squares, :math:`(1 - \beta_2) g^2`, vanish below the
    smallest number of the type: the gradient there is the least that they can be divided by. In float16 that is
    0.008, in all other types less than the usual eps.

    Example:
        >>> adam_eps([torch.zeros(1)]), round(adam_eps([torch.zeros(1).half()]), 4)
        (1e-08, 0.0077)
    """
    types = {parameter.dtype for parameter in parameters}
    least = max((torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps for dtype in types), default=0.0)
    return float(max(1e-8, (least / (1 - decay)) ** 0.5))
