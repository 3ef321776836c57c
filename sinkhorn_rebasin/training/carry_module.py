"""Carrying as a LightningModule: an alignment trained so that a carried update does well, under any Trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError, RebasinError, SpecError
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.networks.architecture import named_tensors, single_precision, tensors_of
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.comparison import check_comparable
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, samples_in
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.rebasin_module import OptimizerFactory, RebasinModule


class CarryModule(RebasinModule):
    r"""Train an alignment for carrying an update.

    .. math:: \min_{P, s} \sum_{(x, y)} \ell\bigl(f(x;\, \theta_{\mathrm{new}} +
        s\, \pi_P(\theta_{\mathrm{tuned}} - \theta_{\mathrm{base}})),\, y\bigr)

    with P the soft permutations of a re-basin, and its scales, signs and maps where it has some. It runs under any
    Lightning Trainer, with the checkpoints, callbacks and rates of :class:`RebasinModule`.

    Training logs ``train_loss`` and ``temperature``. Validation runs hard permutations and logs ``val_loss`` and
    ``val_new_base_loss``, the loss of the new base alone; tests log the same as ``test_loss`` and
    ``test_new_base_loss``. Prediction runs the network that :meth:`to_model` returns. Afterwards
    ``carry(tuned, base, new_base, module.rebasin.alignment(), module.scale)`` is that update.

    Args:
        rebasin: of the new base as reference and the base as target; it starts at their weight matching.
        tuned: the fine-tune of the base, of its architecture. Where there are maps, in the form of the target.
        criterion: (outputs, labels) to a loss. To follow the tuned network without labels let ``batch`` return its
            outputs as labels.
        scale: s at the start.
        factor_lr: learning rate of s; 0 keeps it.
        lr, scale_lr, scale_decay, rotation_lr, optimizer, batch: as for :class:`RebasinModule`.

    Raises:
        ArchitectureError: the tuned network is of another architecture, named by its first difference, or equal to
            the base.
        SpecError: the scale is not finite.
        RebasinError: both sides of the re-basin move.

    Example:
        >>> base, new_base, tuned = (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(3))
        >>> module = CarryModule(SinkhornRebasin(new_base, base, torch.randn(2, 4)), tuned)
        >>> module.training_step((torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])), 0).requires_grad
        True
    """

    def __init__(
        self,
        rebasin: SinkhornRebasin,
        tuned: nn.Module,
        *,
        criterion: Criterion = task_loss,
        scale: float = 0.75,
        factor_lr: float = 0.02,
        lr: float = 0.1,
        scale_lr: float | None = None,
        scale_decay: float = 0.0,
        rotation_lr: float = 0.03,
        optimizer: OptimizerFactory | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(
            rebasin,
            self._loss_of_carried,
            lr=lr,
            scale_lr=scale_lr,
            scale_decay=scale_decay,
            rotation_lr=rotation_lr,
            optimizer=optimizer,
            criterion=criterion,
            batch=batch,
        )
        if isinstance(scale, bool) or not math.isfinite(scale):
            raise SpecError(f"Expected scale to be a finite number but got {scale!r}.")
        self.difference = _difference(rebasin, tuned)
        self.factor = nn.Parameter(torch.tensor(float(scale)), requires_grad=factor_lr > 0)
        self.factor_lr = factor_lr
        summed = adds_up(criterion)
        self.val_loss, self.val_new_base_loss = (SumMetric() if summed else MeanMetric() for _ in range(2))
        self._state: State | None = None
        self.save_hyperparameters({"scale": scale, "factor_lr": factor_lr})

    @property
    def scale(self) -> float:
        """Return s as it is now."""
        return float(self.factor.detach())

    def carried_state(self, hard: bool | None = None, scale: float | Tensor | None = None) -> State:
        """Return the new base's tensors with the update added.

        Args:
            hard: whether at hard permutations; None for soft ones in training mode and hard ones in eval mode.
            scale: s; None is the one that is learned.
        """
        scale = self.factor if scale is None else scale
        rebasin = self.rebasin
        start = rebasin.reference_state()
        difference = {name: tensor.to(start[name].device) for name, tensor in self.difference.items()}
        moved = rebasin.moved(difference, rebasin.permutations(hard))
        return {
            name: (tensor + scale * moved[name]).to(tensor.dtype) if name in difference else tensor
            for name, tensor in start.items()
        }

    @torch.no_grad()
    def to_model(self) -> nn.Module:
        """Return the new base with the update added at hard permutations, as a plain network."""
        return self.rebasin.plain(self.carried_state(hard=True), "reference")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the module of a checkpoint.

        Args:
            checkpoint_path: of a checkpoint that a Trainer wrote.
            args, kwargs: of Lightning's function; ``rebasin`` and ``tuned``, and ``optimizer``, ``criterion`` and
                ``batch`` where there were some, because a checkpoint holds no code.

        Raises:
            RebasinError: without ``rebasin`` or ``tuned``.
            CheckpointError: the checkpoint is of another architecture.
        """
        missing = [f"{name}=" for name in ("rebasin", "tuned") if name not in kwargs]
        if missing:
            raise RebasinError(
                f"Expected {' and '.join(missing)} beside the checkpoint, which holds what was learned and no code, "
                f"but got none: {cls.__name__}.load_from_checkpoint(path, rebasin=SinkhornRebasin(...), tuned=...)."
            )
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam for scores, scales, maps and the scale of the update; or what the factory makes."""
        optimizer = super().configure_optimizers()
        if self.factor.requires_grad:
            optimizer.add_param_group({"params": [self.factor], "lr": self.factor_lr, "weight_decay": 0.0})
        return optimizer

    def forward(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """Run the new base with the update added, at scale ``at`` where it is given."""
        return self.rebasin.run(self.carried_state(scale=at), inputs)

    def on_validation_epoch_start(self) -> None:
        """Carry once, for all batches."""
        self._state = self.carried_state(hard=True)
        # Here, as what was reset in inference mode cannot be updated outside of it.
        self.val_loss.reset()
        self.val_new_base_loss.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Record the losses with the update and without it for one batch."""
        network = self.rebasin.reference
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        states = self._state or self.carried_state(hard=True), self.rebasin.reference_state()
        outputs = [self.rebasin.run(state, inputs) for state in states]
        weight = batch_weight(*compared(outputs[0], labels), self.criterion, samples_in(inputs, labels))
        if not weight > 0:
            return  # a batch of padding alone
        weights = () if adds_up(self.criterion) else (weight,)
        for metric, output in zip((self.val_loss, self.val_new_base_loss), outputs, strict=True):
            metric.update(scored(self.criterion, output, labels), *weights)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return what the new base with the update returns for one batch."""
        inputs, _ = read_batch(batch, self.batch, network=self.rebasin.reference, labelled=False)
        return self.rebasin.run(self._state or self.carried_state(hard=True), inputs)

    def on_predict_epoch_end(self) -> None:
        """Let go of the state."""
        self._state = None

    def _log_path(self, stage: str) -> None:
        for name, metric in (("loss", self.val_loss), ("new_base_loss", self.val_new_base_loss)):
            self.log(f"{stage}_{name}", metric.compute(), prog_bar=name == "loss")
        self._state = None

    def _loss_of_carried(self, rebasin: SinkhornRebasin, batch: Any) -> Tensor:
        inputs, labels = read_batch(batch, network=rebasin.reference, criterion=self.criterion)
        return scored(self.criterion, rebasin.run(self.carried_state(), inputs), labels)


def _difference(rebasin: SinkhornRebasin, tuned: nn.Module) -> State:
    """Return tuned minus base of every parameter."""
    if rebasin.reference_maps():
        raise RebasinError(
            "Expected a re-basin whose reference stays, as the update is added to it, but both sides move: make it "
            "with both_sides=False."
        )
    check_comparable(rebasin.target, tuned)
    check_canonical(tensors_of(tuned), rebasin.continuous, "tuned network")
    first, second = named_tensors(tuned), rebasin.target_state()
    difference: State = {}
    for name, _ in tuned.named_parameters(remove_duplicate=False):
        ours, theirs = (single_precision(each[name].detach()) for each in (first, second))
        difference[name] = torch.where(ours == theirs, 0.0, ours - theirs)
        if not bool(difference[name].abs().sum().isfinite()):
            raise ArchitectureError(
                f"Expected a finite update but {name!r} of the tuned network minus its base is not finite."
            )
    if not any(bool(tensor.any()) for tensor in difference.values()):
        raise ArchitectureError(
            "Expected a tuned network that differs from its base but every parameter is equal: there is nothing to "
            "carry."
        )
    return difference
