"""A re-basin as a LightningModule: plug it into any Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.errors import DataError, RebasinError
from sinkhorn_rebasin.losses import RebasinLoss, WeightDistance, checked_loss
from sinkhorn_rebasin.metrics import BarrierAUC, LossBarrier
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, samples_in
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.random_state import KeepsRandomState

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class RebasinModule(KeepsRandomState):
    """Train a re-basin's scores with any loss.

    It runs under any Lightning Trainer. Scales are trained where the re-basin has them.

    Training logs ``train_loss`` and ``temperature``. Where a validation dataloader of (inputs, labels) is given,
    validation runs the hard permutations and logs ``val_barrier``, ``val_auc`` and ``val_midpoint_loss``.

    Checkpoints hold torch's random state, see :class:`KeepsRandomState`.

    Args:
        rebasin: the module to train.
        loss: any callable ``(rebasin, batch) -> scalar``.
        lr: learning rate of Adam on the scores.
        scale_lr: learning rate of Adam on the log-scales of a re-basin that rescales; None: the same.
        scale_decay: decoupled weight decay of the log-scales, towards the target's own scales.
        rotation_lr: learning rate of Adam on the maps of continuous symmetries.
        hard: train at hard permutations, with the re-basin in eval mode: only log-scales and maps move. A second,
            short fit of this kind closes the gap between hard permutations and the soft ones that the scales were
            learned with.
        optimizer: a function from the parameters that are trained to an optimiser, instead of Adam.
        criterion: what validation measures on the path; without one :func:`task_loss`.
        points: positions on the path that validation evaluates, odd.
        batch: a function from a batch to (inputs, labels), for data that yield something else; the loss is given
            this pair.

    Raises:
        LossError: when the loss is not a finite scalar, or does not depend on the scores.
        DataError: when the training dataloader is empty, or the number of points is even.
        CheckpointError: when a checkpoint of another architecture is loaded.
        RebasinError: when ``hard`` leaves nothing to train because the re-basin learns no scales, or signs alone.

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
        scale_lr: float | None = None,
        scale_decay: float = 0.0,
        rotation_lr: float = 0.03,
        hard: bool = False,
        optimizer: OptimizerFactory | None = None,
        criterion: Criterion = task_loss,
        points: int = 11,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__()
        self.rebasin = rebasin
        self.loss = loss
        self.lr = lr
        self.scale_lr = lr if scale_lr is None else scale_lr
        self.scale_decay = scale_decay
        self.rotation_lr = rotation_lr
        if hard and not (rebasin.log_scales or rebasin.continuous):
            found = "it has none: make it with SinkhornRebasin(..., rescale=True)."
            if rebasin.sign_scores:
                found = "of this network only signs are free (tanh), which a soft fit learns: leave hard=True out."
            raise RebasinError(
                f"Expected a re-basin that learns scales, because hard=True trains nothing else, but {found}"
            )
        self.hard = hard
        self.optimizer_factory = optimizer
        self.criterion = criterion
        self.batch = batch
        if points < 3 or points % 2 == 0:
            raise DataError(
                f"Expected an odd number of points, at least 3, so that ½ is one but got {points}."
            )
        self.positions = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
        summed = adds_up(criterion)
        self.val_barrier = LossBarrier(self.positions, summed=summed)
        self.val_auc = BarrierAUC(self.positions, summed=summed)
        self.val_midpoint_loss = SumMetric() if summed else MeanMetric()
        self._path: LinearPath | None = None
        self._waits_for_batch = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam for scores and log-scales.

        The factory makes another, if there is one.
        """
        learned = (self.rebasin.scores, self.rebasin.sign_scores)
        scores = [] if self.hard else [score for kind in learned for score in kind.parameters()]
        scores = [score for score in scores if score.requires_grad]
        scales = list(self.rebasin.log_scales.parameters())
        maps = [*self.rebasin.maps.parameters(), *self.rebasin.reference_maps.parameters()]
        if self.optimizer_factory is not None:
            return self.optimizer_factory([*scores, *scales, *maps])
        groups = [
            {"params": scores, "lr": self.lr, "weight_decay": 0.0},
            {"params": scales, "lr": self.scale_lr, "weight_decay": self.scale_decay},
            {"params": maps, "lr": self.rotation_lr, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        given = batch if self.batch is None else read_batch(batch, self.batch, labelled=False)
        if isinstance(self.loss, WeightDistance) and self._trainer is not None:
            self.loss.progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        loss = checked_loss(self.loss(self.rebasin, given))
        self._waits_for_batch = False
        if self._trainer is not None:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
            self.log("temperature", self.rebasin.temperature.clone(), prog_bar=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Permute once, for all batches."""
        self._path = self.rebasin.path()

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
        metrics = {
            "val_barrier": self.val_barrier,
            "val_auc": self.val_auc,
            "val_midpoint_loss": self.val_midpoint_loss,
        }
        for name, metric in metrics.items():
            self.log(name, metric.compute(), prog_bar=name == "val_barrier")
            metric.reset()
        self._path = None

    def on_fit_start(self) -> None:
        """Train on soft permutations.

        The re-basin may have been left in any mode.
        """
        self.rebasin.train()

    def on_train_start(self) -> None:
        """Train on hard permutations instead, if asked.

        Any earlier, Lightning would warn of a module in eval mode.
        """
        super().on_train_start()
        self._waits_for_batch = True
        if self.hard:
            self.rebasin.eval()

    def on_fit_end(self) -> None:
        """Raise DataError after a fit without steps.

        A fit that could not take a single step is no silent success.
        """
        # A loader without a length, or a network that raises StopIteration, shows no sooner that nothing comes.
        if self.trainer.num_training_batches == 0 or (
            self._waits_for_batch and self.trainer.ckpt_path is None
        ):
            raise DataError(
                "Expected a training dataloader with at least one batch but it is empty, or the network or loss "
                "raised StopIteration, which ends an epoch; for losses without data pass data_free_steps(n)."
            )
