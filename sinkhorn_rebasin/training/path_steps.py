"""What a re-basin does in validation, in tests and in prediction: the path at hard permutations."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import MeanMetric, Metric, SumMetric

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import BarrierAUC, LossBarrier
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, samples_in
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.random_state import KeepsRandomState


class PathSteps(KeepsRandomState):
    """Evaluate the path of a re-basin under a Trainer.

    It is a LightningModule. Permutations are hard. ``trainer.validate`` logs ``val_barrier``, ``val_auc`` and
    ``val_midpoint_loss``; ``trainer.test`` logs ``test_barrier``, ``test_auc`` and ``test_midpoint_loss``;
    ``trainer.predict`` returns the outputs of one network of the path.

    Args:
        rebasin: whose path it is.
        criterion: what is measured on the path.
        points: positions on the path, odd.
        predict_at: λ of the network that predicts.
        batch: a function from a batch to (inputs, labels).

    Raises:
        DataError: when the number of points is even or too small, or λ is outside of [0, 1].
    """

    def __init__(
        self,
        rebasin: SinkhornRebasin,
        criterion: Criterion,
        points: int,
        predict_at: float,
        batch: BatchAdapter | None,
    ) -> None:
        super().__init__()
        self.rebasin = rebasin
        self.criterion = criterion
        self.batch = batch
        if points < 3 or points % 2 == 0:
            raise DataError(
                f"Expected an odd number of points, at least 3, so that ½ is one but got {points}."
            )
        if not 0 <= predict_at <= 1:
            raise DataError(f"Expected predict_at, a position of the path, from 0 to 1 but got {predict_at}.")
        self.predict_at = predict_at
        self.positions = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
        summed = adds_up(criterion)
        self.val_barrier = LossBarrier(self.positions, summed=summed)
        self.val_auc = BarrierAUC(self.positions, summed=summed)
        self.val_midpoint_loss = SumMetric() if summed else MeanMetric()
        self._path: LinearPath | None = None

    def on_validation_epoch_start(self) -> None:
        """Permute once, for all batches."""
        self._path = self.rebasin.path()
        for metric in (self.val_barrier, self.val_auc, self.val_midpoint_loss):
            metric.reset()  # of what an epoch that was broken off has counted

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Record losses along the path for one batch."""
        network = self.rebasin.reference
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        path = self._path or self.rebasin.path()
        states = (path.state_at(position) for position in self.positions)
        outputs = [self.rebasin.run(state, inputs) for state in states]
        losses = torch.stack([scored(self.criterion, output, labels) for output in outputs])
        weight = batch_weight(*compared(outputs[0], labels), self.criterion, samples_in(inputs, labels))
        if not weight > 0:
            return  # a batch of padding alone
        for metric in (self.val_barrier, self.val_auc):
            metric.update(losses, weight)
        middle = losses[len(losses) // 2]
        self.val_midpoint_loss.update(middle, *(() if adds_up(self.criterion) else (weight,)))

    def on_validation_epoch_end(self) -> None:
        """Log what the path looks like.

        The path is let go of.
        """
        self._log_path("val")

    def on_test_epoch_start(self) -> None:
        """Permute once, for all batches."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Record losses along the path for one batch."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log what the path looks like on test data."""
        self._log_path("test")

    def on_predict_epoch_start(self) -> None:
        """Permute once, for all batches."""
        self.on_validation_epoch_start()

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return what the network at ``predict_at`` returns for one batch.

        Batch norm runs on statistics between the two networks'; ``rebasin.merge`` with ``repair`` mends them.
        """
        inputs, _ = read_batch(batch, self.batch, network=self.rebasin.reference, labelled=False)
        path = self._path or self.rebasin.path()
        return self.rebasin.run(path.state_at(self.predict_at), inputs)

    def on_predict_epoch_end(self) -> None:
        """Let go of the path."""
        self._path = None

    def _log_path(self, stage: str) -> None:
        metrics: dict[str, Metric] = {
            "barrier": self.val_barrier,
            "auc": self.val_auc,
            "midpoint_loss": self.val_midpoint_loss,
        }
        for name, metric in metrics.items():
            # Processes have added up already: their values are one, and so is the mean of them.
            value = metric.compute()
            self.log(f"{stage}_{name}", value, prog_bar=name == "barrier", sync_dist=True)
            metric.reset()
        self._path = None
