"""A re-basin as a LightningModule: plug it into any Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs
from sinkhorn_rebasin.errors import DataError, RebasinError
from sinkhorn_rebasin.losses import RebasinLoss, WeightDistance, checked_loss
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.original_tensors import OriginalTensors, PutsBackAfterErrors
from sinkhorn_rebasin.training.path_steps import PathSteps
from sinkhorn_rebasin.training.several_processes import (
    check_same_networks,
    check_strategy,
    frozen_names,
    rebasins_in,
)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class RebasinModule(PathSteps):
    """Train a re-basin's scores with any loss.

    It runs under any Lightning Trainer. Scales are trained where the re-basin has them.

    Training logs ``train_loss`` and ``temperature``. Where a validation dataloader of (inputs, labels) is given,
    validation runs the hard permutations and logs ``val_barrier``, ``val_auc`` and ``val_midpoint_loss``. Tests log
    the same as ``test_barrier``, ``test_auc`` and ``test_midpoint_loss``. Prediction runs the network at
    ``predict_at``. Hyper-parameters go to every logger.

    Under DDP the scores of all processes stay equal, and the networks are neither sent nor reduced:

    - The gradient is the mean over processes: that of one process on all of a step's samples, where each has as many.
    - Lightning shuffles what it deals out to processes, also where the loader does not: for the batches of one
      process, give the loader ``DistributedSampler(data, shuffle=False)`` and the Trainer
      ``use_distributed_sampler=False``.
    - Strategies that split weights over processes (FSDP, model parallel, DeepSpeed) are refused.

    Checkpoints hold torch's random state, see :class:`KeepsRandomState`. In a Trainer's precision such as
    ``bf16-true`` the networks are rounded for the run alone; checkpoints and the re-basin afterwards hold them as
    they were.

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
        predict_at: λ of the network that ``trainer.predict`` runs, 0 for the rebased target, 1 for the reference.
        batch: a function from a batch to (inputs, labels), for data that yield something else; the loss is given
            this pair.

    Raises:
        LossError: when the loss is not a finite scalar, or does not depend on the scores.
        DataError: when the training dataloader is empty, the number of points is even, or λ is outside of [0, 1].
        CheckpointError: when a checkpoint of another architecture is loaded.
        RebasinError: when processes hold different networks or parts of them, and when ``hard`` leaves nothing to
            train because the re-basin learns no scales, or signs alone.

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
        predict_at: float = 0.5,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(rebasin, criterion, points, predict_at, batch)
        # Read by DistributedDataParallel.
        self._ddp_params_and_buffers_to_ignore = frozen_names(rebasin, "rebasin.")
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
        self._originals: OriginalTensors | None = None
        self._waits_for_batch = False
        self._empty_epochs = 0
        learned = {
            "lr": lr,
            "scale_lr": self.scale_lr,
            "scale_decay": scale_decay,
            "rotation_lr": rotation_lr,
        }
        settings = {"hard": hard, "points": points, "predict_at": predict_at}
        functions = {"loss": loss, "criterion": criterion, "optimizer": optimizer}
        named = {f"{role}_name": _name_of(function) for role, function in functions.items()}
        solver = {"tolerance": rebasin.tolerance, "max_iterations": rebasin.max_iterations}
        first = {"temperature": float(rebasin.temperature)}
        self.save_hyperparameters({**learned, **settings, **named, **solver, **first})

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the module of a checkpoint.

        Rates and settings are those it was saved with, unless others are given.

        Args:
            checkpoint_path: of a checkpoint that a Trainer wrote.
            args, kwargs: of Lightning's function; ``rebasin`` and ``loss``, and ``optimizer``, ``criterion`` and
                ``batch`` where there were some, because a checkpoint holds no code. The networks' weights are read
                from the checkpoint.

        Raises:
            RebasinError: without ``rebasin`` or ``loss``.
            CheckpointError: the checkpoint is of another architecture.
        """
        missing = [name for name in ("rebasin", "loss") if name not in kwargs]
        if missing and cls is RebasinModule:
            raise RebasinError(
                f"Expected {' and '.join(f'{name}=' for name in missing)} beside the checkpoint, which holds weights "
                f"and no code, but got none: {cls.__name__}.load_from_checkpoint(path, "
                f"rebasin=SinkhornRebasin(...), loss=...), with two networks of the same architecture."
            )
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def forward(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """Run the network at a position of the segment; see :meth:`SinkhornRebasin.forward`."""
        return self.rebasin(inputs, at=at)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """Look after runs that end in an error."""
        present = () if self._trainer is None else self.trainer.callbacks  # type: ignore[attr-defined]
        there = any(isinstance(callback, PutsBackAfterErrors) for callback in present)
        return [] if there else [PutsBackAfterErrors()]

    def setup(self, stage: str) -> None:
        """Remember the networks before the Trainer converts them.

        At hard permutations scores are not trained, which the Trainer's summary should tell.
        """
        self.put_originals_back()
        if self._trainer is not None:
            check_strategy(self.trainer.strategy)
        self._originals = OriginalTensors(self.rebasin)
        if self.hard and stage == "fit":
            self.rebasin.scores.requires_grad_(False)
            self.rebasin.sign_scores.requires_grad_(False)

    def teardown(self, stage: str) -> None:
        """Put the networks back as they were."""
        for rebasin in rebasins_in(self.rebasin).values():
            rebasin.candidates.share = None
        self.put_originals_back()

    def put_originals_back(self) -> None:
        """Put networks, types and flags back as they were before a run, if there was one."""
        if self._originals is not None:
            self._originals.put_back()
        self._originals = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states and the networks as they were, beside what is learned."""
        super().on_save_checkpoint(checkpoint)
        if self._originals is not None:
            tensors = self._originals.converted()
            checkpoint["state_dict"].update({f"rebasin.{name}": tensor for name, tensor in tensors.items()})

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
        self._empty_epochs = 0
        if self._trainer is not None:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
            self.log("temperature", self.rebasin.temperature.clone(), prog_bar=True, batch_size=1)
        return loss

    def on_fit_start(self) -> None:
        """Train on soft permutations.

        The re-basin may have been left in any mode.
        """
        self.rebasin.train()
        if self.trainer.world_size > 1:
            check_same_networks(self.rebasin)
            for rebasin in rebasins_in(self.rebasin).values():
                rebasin.candidates.share = self.trainer.strategy.broadcast

    def on_train_start(self) -> None:
        """Train on hard permutations instead, if asked.

        Any earlier, Lightning would warn of a module in eval mode.
        """
        super().on_train_start()
        self._waits_for_batch = True
        self._empty_epochs = 0
        if self.hard:
            self.rebasin.eval()

    def on_train_epoch_start(self) -> None:
        """Raise DataError where one epoch after the other is empty.

        A fit of so many steps would never end. An epoch resumed at its end may be empty.
        """
        super().on_train_epoch_start()
        if self._empty_epochs > 1:
            raise DataError(
                "Expected a training dataloader that can be read again in every epoch but it is used up after one "
                "pass: pass a DataLoader or a list of batches, or stop after one epoch."
            )
        self._empty_epochs += 1

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


def _name_of(function: Any) -> str:
    """Name a function for a logger; empty without one.

    >>> _name_of(torch.relu), _name_of(None)
    ('relu', '')
    """
    return "" if function is None else str(getattr(function, "__name__", function))
