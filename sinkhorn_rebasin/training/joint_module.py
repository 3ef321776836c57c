"""Several networks' re-basins as one LightningModule."""

from __future__ import annotations

from typing import Any

from torchmetrics import MeanMetric, SumMetric

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.merging.joint_rebasin import JointRebasin
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, samples_in
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.training.rebasin_module import RebasinModule


class JointRebasinModule(RebasinModule):
    """Train the re-basins of several networks with any loss.

    Everything is as for :class:`RebasinModule`, whose callbacks it takes, but for validation and tests: they run the
    mean of all networks at hard permutations and log ``val_merged_loss`` and ``test_merged_loss``. Prediction runs
    that mean.

    Args:
        rebasin: the module to train.
        loss: any callable ``(joint, batch) -> scalar``, such as :class:`SimplexLoss`.
        options: of :class:`RebasinModule`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sinkhorn_rebasin.losses import SimplexLoss
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> module = JointRebasinModule(JointRebasin(nets, torch.randn(2, 4)), SimplexLoss())
        >>> module.training_step((torch.randn(16, 4), torch.randint(3, (16,))), 0).requires_grad
        True
    """

    def __init__(self, rebasin: JointRebasin, loss: RebasinLoss, **options: Any) -> None:
        super().__init__(rebasin, loss, **options)  # type: ignore[arg-type]
        self.val_merged_loss = SumMetric() if adds_up(self.criterion) else MeanMetric()
        self._merged: State | None = None

    def on_validation_epoch_start(self) -> None:
        """Merge once, for all batches."""
        self._merged = self.joint.state_at(hard=True)
        self.val_merged_loss.reset()  # of what an epoch that was broken off has counted

    @property
    def joint(self) -> JointRebasin:
        """Return the module that is trained."""
        joint: Any = self.rebasin
        return joint

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Record the merged network's loss for one batch."""
        network = self.joint.reference
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        output = self.joint.run(self._merged or self.joint.state_at(hard=True), inputs)
        weight = batch_weight(*compared(output, labels), self.criterion, samples_in(inputs, labels))
        if weight > 0:
            loss = scored(self.criterion, output, labels)
            self.val_merged_loss.update(loss, *(() if adds_up(self.criterion) else (weight,)))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return what the mean of all networks returns for one batch."""
        inputs, _ = read_batch(batch, self.batch, network=self.joint.reference, labelled=False)
        return self.joint.run(self._merged or self.joint.state_at(hard=True), inputs)

    def on_predict_epoch_end(self) -> None:
        """Let go of the merged network."""
        self._merged = None

    def _log_path(self, stage: str) -> None:
        self.log(f"{stage}_merged_loss", self.val_merged_loss.compute(), prog_bar=True)
        self.val_merged_loss.reset()
        self._merged = None
