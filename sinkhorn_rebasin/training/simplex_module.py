"""The vertices of simplexes as a LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity.interpolation import is_mixable
from sinkhorn_rebasin.connectivity.learned_complex import LearnedComplex
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses import checked_loss
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.training.random_state import KeepsRandomState
from sinkhorn_rebasin.training.rebasin_module import OptimizerFactory


class SimplexModule(KeepsRandomState):
    r"""Train the vertices of simplexes, one after the other.

    .. math:: \frac1H \sum_{h=1}^H \mathcal C(\theta_h) - \lambda_j \log V(K), \qquad \theta_h \sim K

    The points are drawn anew for every batch, and batch norm runs on the batch. A new vertex is taken in every so
    many epochs: a fit of ``epochs_per_vertex`` times the number of vertices trains all. Training logs ``train_loss``,
    the mean over points, and ``log_volume``.

    Args:
        complex: whose vertices are trained.
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        volume_weight: λ, one for all vertices or one for each.
        points: H, of each batch.
        epochs_per_vertex: after which the next vertex begins.
        lr: learning rate of SGD with momentum 0.9.
        weight_decay: of the vertices, in SGD.
        optimizer: a function from the parameters that are trained to an optimiser, instead of SGD.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        LossError: a loss that is no finite scalar, or another number of volume weights.

    Example:
        >>> from sinkhorn_rebasin.connectivity import LearnedComplex
        >>> module = SimplexModule(LearnedComplex([nn.Linear(3, 2), nn.Linear(3, 2)]))
        >>> module.complex.grow()
        >>> module.training_step((torch.randn(8, 3), torch.randint(2, (8,))), 0).requires_grad
        True

    Source: Benton, Maddox, Lotfi, Wilson, "Loss Surface Simplexes for Mode Connecting Volumes and Fast Ensembling"
    (2021).
    """

    def __init__(
        self,
        complex: LearnedComplex,
        criterion: Criterion = task_loss,
        *,
        volume_weight: float | Sequence[float] = 1e-6,
        points: int = 5,
        epochs_per_vertex: int = 10,
        lr: float = 0.01,
        weight_decay: float = 0.0,
        optimizer: OptimizerFactory | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__()
        count = len(complex.vertices)
        single = isinstance(volume_weight, (int, float))
        self.volume_weights = [float(volume_weight)] * count if single else list(volume_weight)  # type: ignore[arg-type]
        if len(self.volume_weights) != count or points < 1 or epochs_per_vertex < 1:
            raise LossError(
                f"Expected a volume weight for each of the {count} vertices, and at least one point and one epoch, "
                f"but got {len(self.volume_weights)} weights, {points} points and {epochs_per_vertex} epochs."
            )
        self.complex, self.criterion = complex, criterion
        self.points, self.epochs_per_vertex = points, epochs_per_vertex
        self.lr, self.weight_decay = lr, weight_decay
        self.optimizer_factory, self.batch = optimizer, batch
        self.save_hyperparameters(
            {
                "volume_weight": volume_weight,
                "points": points,
                "epochs_per_vertex": epochs_per_vertex,
                "lr": lr,
                "weight_decay": weight_decay,
                "kind": complex.kind,
            }
        )

    def on_fit_start(self) -> None:
        """Run batch norm on batches.

        The complex may have been left in any mode.
        """
        self.complex.train()

    def on_train_epoch_start(self) -> None:
        """Take in the vertex whose epochs begin."""
        super().on_train_epoch_start()
        wanted = min(len(self.complex.vertices), self.current_epoch // self.epochs_per_vertex + 1)
        while int(self.complex.grown) < wanted:
            self.complex.grow()
        self.complex.free_newest()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make SGD for all vertices.

        Those without a gradient stay. A factory makes another optimiser.
        """
        vertices = [parameter for parameter in self.complex.vertices.parameters() if is_mixable(parameter)]
        if self.optimizer_factory is not None:
            return self.optimizer_factory(vertices)
        return torch.optim.SGD(vertices, self.lr, momentum=0.9, weight_decay=self.weight_decay)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss at random points, less volume."""
        network: nn.Module = self.complex.networks[0]
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        states = self.complex.draw_states(self.points)
        losses = [scored(self.criterion, self.complex.run(state, inputs), labels) for state in states]
        mean, volume = torch.stack(losses).mean(), self.complex.log_volume()
        weight = self.volume_weights[max(0, int(self.complex.grown) - 1)]
        loss = checked_loss(mean - (weight * volume).to(mean)) if weight else checked_loss(mean)
        if self._trainer is not None:
            self.log("train_loss", mean.detach(), prog_bar=True, batch_size=1)
            self.log("log_volume", volume.detach().float(), prog_bar=True, batch_size=1)
        return loss
