"""Permutations and bends of a curve, trained in turn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, State
from sinkhorn_rebasin.connectivity.learned_curve import CurveKind, LearnedCurve
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses import CurvePointLoss, checked_loss
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.curve_module import CurveModule

COMPARED_AT = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Positions at which new permutations are compared with those before."""


class AlternatingCurveModule(CurveModule):
    r"""Train permutations and bends in turn.

    .. math:: P^{k+1} = \arg\min_P\ \mathbb E_\lambda\, \mathcal C\bigl(\theta_{P, \phi^k}(\lambda)\bigr) +
        \frac{1}{2\nu} \lVert P - P^k \rVert^2, \qquad
        \phi^{k+1} = \arg\min_\phi\ \mathbb E_\lambda\, \mathcal C\bigl(\theta_{P^{k+1}, \phi}(\lambda)\bigr)

    A round is so many epochs of soft permutations at fixed bends, then so many epochs of the bends at hard ones.
    After the first part hard permutations are kept where the curve's loss, on batches of this part, is no higher than
    with those before. A fit of as many epochs as a round has is one round, which suffices in the source. It works for
    any architecture that the re-basin's symmetries are known of.

    - Without data, :func:`weight_matching` of a bend and the target is another first half.
    - A lower temperature of the re-basin, or :class:`TemperatureAnnealing`, brings soft permutations near hard ones.

    Args:
        rebasin: between reference and target; its scores are trained, and where they start is its own.
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        kind, bends: as for :class:`LearnedCurve`.
        permutation_epochs, bend_epochs: the two parts of a round.
        proximal: ν.
        score_lr: learning rate of Adam on the scores.
        lr: learning rate of Adam on the bends.
        weight_decay: γ, as for :class:`CurveModule`, while bends are trained.
        compared: batches that new permutations are judged on; 0 takes them always.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Attributes:
        curve: the curve, from the target as it was last moved to the reference.
        rebasin: ``rebasin.alignment()`` has the permutations.

    Raises:
        LossError: a loss that is no finite scalar, or a part of a round without an epoch.

    Example:
        >>> from torch import nn
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> module = AlternatingCurveModule(SinkhornRebasin(a, b, torch.randn(2, 4)))
        >>> module.training_step((torch.randn(16, 4), torch.randint(3, (16,))), 0).requires_grad
        True

    Source: Tatro, Chen, Das, Melnyk, Sattigeri, Lai, "Optimizing Mode Connectivity via Neuron Alignment" (2020);
    soft permutations by Sinkhorn: this package.
    """

    def __init__(
        self,
        rebasin: SinkhornRebasin,
        criterion: Criterion = task_loss,
        *,
        kind: CurveKind = "bezier",
        bends: int = 1,
        permutation_epochs: int = 2,
        bend_epochs: int = 5,
        proximal: float = 1e3,
        score_lr: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        compared: int = 4,
        batch: BatchAdapter | None = None,
    ) -> None:
        if permutation_epochs < 1 or bend_epochs < 1:
            raise LossError(
                f"Expected at least one epoch of permutations and one of bends but got {permutation_epochs} and "
                f"{bend_epochs}."
            )
        curve = LearnedCurve(
            rebasin.to_model(), rebasin.plain(rebasin.reference_state()), kind=kind, bends=bends
        )
        super().__init__(curve, criterion, lr=lr, weight_decay=weight_decay, batch=batch)
        self.rebasin = rebasin
        self.permutation_epochs, self.bend_epochs = permutation_epochs, bend_epochs
        self.proximal, self.score_lr, self.compared = proximal, score_lr, compared
        self._begin_part()
        self.save_hyperparameters(
            {
                "permutation_epochs": permutation_epochs,
                "bend_epochs": bend_epochs,
                "proximal": proximal,
                "score_lr": score_lr,
            }
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam for scores and bends."""
        scores = [score for score in self.rebasin.parameters() if score.requires_grad]
        bends = [bend for bend in self.curve.bends.parameters() if bend.requires_grad]
        groups = [{"params": scores, "lr": self.score_lr}, {"params": bends, "lr": self.lr}]
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def on_fit_start(self) -> None:
        """Run batch norm on batches in both parts."""
        super().on_fit_start()
        self.rebasin.train()

    def moves_permutations(self) -> bool:
        """Tell whether this epoch trains permutations."""
        epoch = self.current_epoch if self._trainer is not None else 0
        return epoch % (self.permutation_epochs + self.bend_epochs) < self.permutation_epochs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return one batch's loss at a random point."""
        if not self.moves_permutations():
            return super().training_step(batch, batch_idx)
        given = batch if self.batch is None else read_batch(batch, self.batch, labelled=False)
        if len(self._kept) < self.compared:
            self._kept.append(given)
        loss = checked_loss(self._loss(self.rebasin, given))
        if self._trainer is not None:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss

    def on_train_epoch_end(self) -> None:
        """Take new permutations after their last epoch."""
        super().on_train_epoch_end()
        place = self.current_epoch % (self.permutation_epochs + self.bend_epochs)
        if place == self.permutation_epochs - 1:
            self.take_permutations()

    @torch.no_grad()
    def take_permutations(self) -> bool:
        """Move the curve's start to new permutations.

        It moves where the curve is no worse.

        Returns:
            Whether they were taken. Where not, the re-basin goes back to what it had learned before.
        """
        ends = self.rebasin.rebased_state(hard=True), self.rebasin.reference_state()
        before = tensors_of(self.curve.start), tensors_of(self.curve.end)
        taken = not self._kept or self._on_curve(*ends) <= self._on_curve(*before)
        if taken:
            for network, state in zip((self.curve.start, self.curve.end), ends, strict=True):
                network.load_state_dict(state, strict=False)
        else:
            for name, tensor in self._learned().items():
                tensor.copy_(self._before[name])
        self._begin_part()
        return taken

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was learned before this part too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["before_permutations"] = {"learned": self._before, "previous": self._loss.previous}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what was learned before the stop."""
        super().on_load_checkpoint(checkpoint)
        if "before_permutations" in checkpoint:
            self._before = checkpoint["before_permutations"]["learned"]
            self._loss.previous = checkpoint["before_permutations"]["previous"]

    def _begin_part(self) -> None:
        """Note where the loss holds permutations."""
        self._kept: list[Any] = []
        self._before = {name: tensor.detach().clone() for name, tensor in self._learned().items()}
        previous = self.rebasin.hard_permutations()
        self._loss = CurvePointLoss(self.curve, self.criterion, previous=previous, proximal=self.proximal)

    def _learned(self) -> dict[str, Tensor]:
        """Return the re-basin's tensors without its networks."""
        return {
            name: tensor
            for name, tensor in self.rebasin.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor) and not name.startswith(("reference.", "target.", "temperature"))
        }

    def _on_curve(self, start: State, end: State) -> float:
        """Return the kept batches' mean loss on a curve."""
        path, losses = self.curve.path_between(start, end), []
        for batch in self._kept:
            inputs, labels = read_batch(batch, network=self.curve.start, criterion=self.criterion)
            losses += [
                scored(self.criterion, self.curve.run(path.state_at(at), inputs), labels)
                for at in COMPARED_AT
            ]
        return float(torch.stack(losses).mean())
