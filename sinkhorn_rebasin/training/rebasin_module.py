"""A re-basin as a LightningModule: plug it into any Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin._typing import Criterion, State
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.losses import RebasinLoss, checked_loss
from sinkhorn_rebasin.metrics import BarrierAUC, LossBarrier
from sinkhorn_rebasin.networks.execution import split_batch
from sinkhorn_rebasin.rebasin import SinkhornRebasin

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class RebasinModule(lightning.LightningModule):
    """Trains the scores of a re-basin with any loss, under any Lightning Trainer.

    Training logs ``train_loss`` and ``temperature``. Where a validation dataloader of (inputs, labels) is given,
    validation runs the hard permutations and logs ``val_barrier``, ``val_auc`` and ``val_midpoint_loss``.
    A checkpoint also holds torch's random state, so that a run resumed at an epoch's end goes on with the same
    shuffling and the same random positions as one that was never stopped.

    Args:
        rebasin: the module to train.
        loss: any callable ``(rebasin, batch) -> scalar``.
        lr: learning rate of Adam on the scores.
        optimizer: a function from the parameters to an optimiser, instead of Adam.
        criterion: what validation measures on the path.
        points: positions on the path that validation evaluates, odd.

    Raises:
        LossError: when the loss is not a finite scalar.
        DataError: when the training dataloader is empty.
        CheckpointError: when a checkpoint of another architecture is loaded.

    Example:
        >>> from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> module = RebasinModule(SinkhornRebasin(net, net, torch.randn(2, 4)), WeightDistance("l2"))
        >>> module.training_step(0, 0).requires_grad
        True
    """

    def __init__(
        self,
        rebasin: SinkhornRebasin,
        loss: RebasinLoss,
        *,
        lr: float = 0.1,
        optimizer: OptimizerFactory | None = None,
        criterion: Criterion = F.cross_entropy,
        points: int = 11,
    ) -> None:
        super().__init__()
        self.rebasin = rebasin
        self.loss = loss
        self.lr = lr
        self.optimizer_factory = optimizer
        self.criterion = criterion
        self.positions = torch.linspace(0, 1, points).tolist()
        self.val_barrier = LossBarrier(self.positions)
        self.val_auc = BarrierAUC(self.positions)
        self._path_states: list[State] = []
        self._midpoint_total = 0.0
        self._samples = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the scores, or what the factory makes."""
        parameters = self.rebasin.parameters()
        if self.optimizer_factory is not None:
            return self.optimizer_factory(parameters)
        return torch.optim.Adam(parameters, lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = checked_loss(self.loss(self.rebasin, batch))
        if self._trainer is not None:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
            self.log("temperature", self.rebasin.temperature.clone(), prog_bar=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Permute once and lay out the path."""
        self._path_states = [self.rebasin.state_at(position, hard=True) for position in self.positions]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Losses of one batch at every position of the path."""
        inputs, labels = split_batch(batch)
        losses = torch.stack(
            [self.criterion(self.rebasin.run(state, inputs), labels) for state in self._path_states]
        )
        self.val_barrier.update(losses, len(labels))
        self.val_auc.update(losses, len(labels))
        self._midpoint_total += float(losses[len(losses) // 2]) * len(labels)
        self._samples += len(labels)

    def on_validation_epoch_end(self) -> None:
        """Log what the path looks like and let go of it."""
        self.log("val_barrier", self.val_barrier.compute(), prog_bar=True)
        self.log("val_auc", self.val_auc.compute())
        self.log("val_midpoint_loss", self._midpoint_total / max(1, self._samples))
        self.val_barrier.reset()
        self.val_auc.reset()
        self._path_states, self._midpoint_total, self._samples = [], 0.0, 0

    def on_fit_end(self) -> None:
        """A fit that could not take a single step is an error, not a silent success."""
        if self.trainer.num_training_batches == 0:
            raise DataError(
                "Expected a training dataloader with at least one batch but it is empty; for losses without "
                "data pass data_free_steps(n)."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep torch's random state beside the weights."""
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random state of the checkpoint when a Trainer resumes from it."""
        if self._trainer is not None and "random_state" in checkpoint:
            torch.set_rng_state(checkpoint["random_state"].cpu())
