"""Continual learning through re-basin: each task on the segment between the network and its re-based self."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs, State
from sinkhorn_rebasin.activations import reset_batch_norm
from sinkhorn_rebasin.losses import ContinualLoss, consolidated_state
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.symmetry.requested import requested_symmetry
from sinkhorn_rebasin.training.continual.learner import ContinualLearner


class RebasinLearner(ContinualLearner):
    r"""Learn a task by permutations and a residual.

    This is the published method, halfway to the re-based network.

    The first task trains the network plainly. For every further task θ stays fixed while permutations P of its units
    and a residual δ minimise

    .. math:: \mathcal C\bigl(\tfrac12 (\pi_P(\theta) + \theta) + \delta\bigr)

    on the task and on replayed samples, P by AdamW, δ by gradient descent whose gradient is clipped entry by entry.
    When the task ends :math:`\theta \leftarrow \alpha\,\theta + (1-\alpha)\,\pi_P(\theta) + \delta` with hard
    permutations; batch-norm statistics are measured anew on the memory.

    Units with a parameter that needs no gradient stay where they are.

    Args:
        network, tasks: as for :class:`ContinualLearner`; any network whose symmetries discovery understands.
        example_inputs: a tensor, tuple or dict the network takes; needed unless ``spec`` is given.
        spec: the symmetries to use, instead of discovering them.
        alpha: the share of the network as it was.
        temperature: of the soft permutations.
        scores_lr: learning rate of AdamW on the scores.
        residual_lr, residual_decay, residual_clip, residual_scale: learning rate, weight decay and largest gradient
            entry of the residual, and the deviation of the normal numbers it starts from.
        replay_weight: factor of the replayed samples' loss.
        outputs: which outputs count in the symmetries that are discovered: see :func:`discover_symmetry`.
        lr, cosine: of gradient descent in the first task, as published.
        options: the others of :class:`ContinualLearner`.

    Raises:
        ArchitectureError, SymmetryError, SpecError: as :class:`SinkhornRebasin`.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> learner = RebasinLearner(net, tasks=5, example_inputs=torch.randn(2, 4))
        >>> sorted(learner.residual_tensors()) == sorted(net.state_dict())
        True

    Source: Guerrero-Peña, Medeiros, Dubail, Aminbeidokhti, Granger, Pedersoli, "Re-basin via implicit Sinkhorn
    differentiation" (2023).
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        example_inputs: ExampleInputs = None,
        *,
        spec: PermutationSpec | None = None,
        alpha: float = 0.8,
        temperature: float = 1.0,
        scores_lr: float = 0.1,
        residual_lr: float = 0.05,
        residual_decay: float = 0.1,
        residual_clip: float = 0.001,
        residual_scale: float = 1e-4,
        replay_weight: float = 1.0,
        outputs: Outputs = None,
        lr: float = 0.05,
        cosine: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, tasks, lr=lr, cosine=cosine, **options)
        spec = requested_symmetry(self.network, spec, example_inputs, outputs)
        self.rebasin = SinkhornRebasin(
            self.network,
            self.network,
            spec=_without_frozen(spec, self.network),
            start="identity",
            temperature=temperature,
        )
        self.residual = standalone_copy(self.network)
        self.alpha, self.scores_lr = alpha, scores_lr
        self.residual_lr, self.residual_decay = residual_lr, residual_decay
        self.residual_clip, self.residual_scale = residual_clip, residual_scale
        self.cost = ContinualLoss(self._criterion, replay_weight=replay_weight)

    def residual_tensors(self) -> State:
        """Return the residual δ by tensor name.

        Tied tensors come under each of their names.
        """
        named = self.residual.named_parameters(remove_duplicate=False)
        return {name: value for name, value in named if value.requires_grad}

    def begin_task(self) -> None:
        """Start from the identity and a small residual.

        The network becomes both ends of the segment.
        """
        with torch.no_grad():
            self.rebasin.reference.load_state_dict(self.network.state_dict())
            self.rebasin.target.load_state_dict(self.network.state_dict())
            identity = identity_permutations(self.rebasin.spec)
            self.rebasin.candidates.place(self.rebasin.scores, identity)
            for scaling in self.rebasin.scalings.buffers():
                scaling.zero_()
            for value in self.residual.parameters():
                value.normal_(0.0, self.residual_scale)
        self.rebasin.train()

    def configure_optimizers(self) -> Any:
        """Make optimizers for network, scores and residual.

        The first task has the network's own, all others one for the scores and one for the residual.
        """
        if not self.task:
            return super().configure_optimizers()
        scores = torch.optim.AdamW(self.rebasin.scores.parameters(), self.scores_lr)
        return self.scheduled([scores, self.residual_optimizer()])

    def advice(self) -> str:
        """Say what learns new classes."""
        if not self.task:
            return super().advice()
        return (
            "Its residual takes steps too small for classes that the network has not seen, at a gradient clipped to "
            f"{self.residual_clip:g}: use DistillingRebasinLearner, or raise residual_lr or residual_clip."
        )

    def residual_optimizer(self) -> torch.optim.Optimizer:
        """Make stochastic gradient descent for the residual."""
        return torch.optim.SGD(self.residual_parameters(), self.residual_lr, weight_decay=self.residual_decay)

    def residual_parameters(self) -> list[nn.Parameter]:
        """List what the residual's optimizer steps."""
        return [value for value in self.residual.parameters() if value.requires_grad]

    def loss(self, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Return the published cost of a batch.

        In the first task it is the criterion alone.
        """
        if not self.task:
            return self.task_loss(self(inputs), labels, self.task)
        tasks = torch.full_like(labels, self.task, dtype=torch.long)
        replay = self.replay(labels)
        replayed = None if replay is None else (replay.inputs, (replay.labels, replay.tasks))
        return self.cost(self.rebasin, self.residual_tensors(), (inputs, (labels, tasks)), replayed)

    def after_backward(self) -> None:
        """Clip the residual's gradient, entry by entry."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        if isinstance(optimizers, list):
            # In float16 the gradient is still that of the scaled loss.
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            self.clip_gradients(optimizers[1], scale * self.residual_clip, "value")

    def forward(self, inputs: ExampleInputs) -> Any:
        """Return the output of the current network.

        While a task is learned, it is the output of what the network would become if the task ended now.
        """
        if not self.task or not bool(self.begun):
            return super().forward(inputs)
        return scores_of(self.rebasin.run(self.consolidated(), inputs))

    def consolidated(self) -> State:
        """Return the tensors if the task ended now.

        They are those the network would have.
        """
        return consolidated_state(self.rebasin, self.residual_tensors(), self.alpha)

    def end_task(self) -> None:
        """Move the network."""
        if self.task:
            self.move(self.consolidated())

    def move(self, state: State) -> None:
        """Give the network these tensors.

        Batch norm gets the statistics of what is remembered.
        """
        self.network.load_state_dict(state, strict=False)
        if self.memory is not None:
            reset = reset_batch_norm(self.network, self.memory.inputs_seen())
            self.network.load_state_dict(tensors_of(reset), strict=False)

    def _criterion(self, outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        return self.task_loss(outputs, *targets)


def _without_frozen(spec: PermutationSpec, network: nn.Module) -> PermutationSpec:
    """Drop groups that would move frozen parameters.

    Frozen parameters need no gradient.
    """
    learned = {name for name, p in network.named_parameters(remove_duplicate=False) if p.requires_grad}
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    held = {slot.group for slot in spec.slots if slot.tensor in parameters - learned}
    return spec.without(*held) if held else spec
