"""The bends of a curve as a LightningModule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity.interpolation import is_mixable
from sinkhorn_rebasin.connectivity.learned_curve import LearnedCurve
from sinkhorn_rebasin.losses import checked_loss
from sinkhorn_rebasin.networks.architecture import (
    parameter_names_of,
    real_view,
    single_precision,
    tensors_of,
)
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.training.random_state import KeepsRandomState
from sinkhorn_rebasin.training.rebasin_module import OptimizerFactory


class CurveModule(KeepsRandomState):
    r"""Train the bends of a curve at random points.

    .. math:: \mathcal C\bigl(\theta(\lambda)\bigr) + \tfrac{\gamma}{2}\, \lVert \theta(\lambda) \rVert^2, \qquad
        \lambda \sim U(0, 1)

    λ is drawn anew for every batch, and batch norm runs on the batch. Weight decay is that of the network at the
    point, as it was trained with, not of the bends. Training logs ``train_loss``.

    Args:
        curve: whose bends are trained.
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        lr: learning rate of SGD with momentum 0.9.
        weight_decay: γ.
        optimizer: a function from the parameters that are trained to an optimiser, instead of SGD.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        LossError: a loss that is no finite scalar.

    Example:
        >>> curve = LearnedCurve(nn.Linear(3, 2), nn.Linear(3, 2))
        >>> module = CurveModule(curve)
        >>> module.training_step((torch.randn(8, 3), torch.randint(2, (8,))), 0).requires_grad
        True

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs" (2018).
    """

    def __init__(
        self,
        curve: LearnedCurve,
        criterion: Criterion = task_loss,
        *,
        lr: float = 0.01,
        weight_decay: float = 0.0,
        optimizer: OptimizerFactory | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__()
        self.curve = curve
        self.criterion = criterion
        self.lr = lr
        self.weight_decay = weight_decay
        self.optimizer_factory = optimizer
        self.batch = batch
        weights = tensors_of(curve.start)
        self._weights = [name for name in parameter_names_of(curve.start) if is_mixable(weights[name])]
        self.save_hyperparameters({"lr": lr, "weight_decay": weight_decay, "kind": curve.kind})

    def forward(self, inputs: Any, at: float | Tensor = 0.5) -> Any:
        """Run the network at a position of the curve."""
        return self.curve(inputs, at=at)

    def on_fit_start(self) -> None:
        """Run batch norm on batches.

        The curve may have been left in any mode.
        """
        self.curve.train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make SGD for the bends.

        A factory makes another optimiser.
        """
        bends = [parameter for parameter in self.curve.bends.parameters() if parameter.requires_grad]
        if self.optimizer_factory is not None:
            return self.optimizer_factory(bends)
        return torch.optim.SGD(bends, self.lr, momentum=0.9)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return one batch's loss at a random point."""
        network: nn.Module = self.curve.start
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        state = self.curve.state_at(torch.rand(()).item())
        loss = scored(self.criterion, self.curve.run(state, inputs), labels)
        if self.weight_decay:
            squares = [single_precision(real_view(state[name])).square().sum() for name in self._weights]
            loss = loss + self.weight_decay / 2 * torch.stack(squares).sum()
        loss = checked_loss(loss)
        if self._trainer is not None:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss
