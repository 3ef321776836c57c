"""The callback that watches a loss on held-out data and keeps the best permutations and scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.losses.base import mean_loss
from sinkhorn_rebasin.training.barrier_monitor import BarrierMonitor, rebasin_of


class LossMonitor(BarrierMonitor):
    """Watch a loss of one's own on held-out batches instead of the barrier.

    For batches without labels, along which no path can be evaluated. The loss is taken at hard permutations, with
    the same random numbers in every evaluation, and logged as ``held_out_loss``.

    Args:
        loss: any callable ``(rebasin, batch) -> scalar``.
        batches: held-out batches, read in every evaluation.
        every: evaluate at the end of every so many epochs.
        restore_best: put the parameters with the lowest loss back at the end.
        batch: a function from a batch to (inputs, labels); the loss is given this pair.

    Attributes:
        history: one (step, loss) per evaluation.
        best_parameters: see :class:`BarrierMonitor`.

    Example:
        >>> from sinkhorn_rebasin import WeightDistance
        >>> LossMonitor(WeightDistance(), [0]).history
        []
    """

    def __init__(
        self,
        loss: RebasinLoss,
        batches: Iterable[Any],
        *,
        every: int = 1,
        restore_best: bool = False,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(batches, every=every, restore_best=restore_best, batch=batch)
        self.loss = loss

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate after every so many epochs."""
        if (trainer.current_epoch + 1) % self.every == 0:
            pl_module.log("held_out_loss", self._evaluate(trainer, pl_module), prog_bar=True, sync_dist=True)

    def _evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> float:
        rebasin = rebasin_of(pl_module).rebasin
        with trainer.precision_plugin.val_step_context():
            converted = map(trainer.precision_plugin.convert_input, self.dataloader)
            value = mean_loss(rebasin, self.loss, converted, batch=self.batch)
        self._remember(trainer.global_step, value, value, rebasin)
        self._tell(trainer, rebasin)
        return value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "best_parameters": self.best_parameters, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        self.best, self.best_parameters = state_dict["best"], state_dict["best_parameters"]
        self.history = state_dict["history"]
