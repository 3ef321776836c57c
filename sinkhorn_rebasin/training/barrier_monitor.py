"""The callback that watches the barrier and keeps the best permutations and scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import lightning
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.connectivity import PathEvaluation, evaluate_path
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare
from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.rebasin.candidates import learned_tensors, restore_learned
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.training.rebasin_module import RebasinModule


class BarrierMonitor(lightning.Callback):
    """Evaluate the path while a re-basin is trained.

    It does so with hard permutations before training, at the end of epochs and of training, and logs ``barrier``. The
    network runs in the Trainer's precision, as in a validation step.

    With ``restore_best`` the best parameters on the monitored data are put back when training ends, so the result is
    never worse there than the start. ``keep`` says what is best. The data should be held out: neither the training
    batches nor the test set. Where that figure is not finite the parameters are never the best.

    Args:
        dataloader: batches of (inputs, labels).
        criterion: (outputs, labels) to the mean loss of a batch; without one :func:`task_loss`.
        points: positions on the path, odd.
        every: evaluate at the end of every so many epochs.
        prepare: applied to every state first, such as :class:`BatchNormReset`.
        repair: batches of training data on which REPAIR puts every state right first, as
            ``rebasin.merge(repair=...)`` does; instead of ``prepare``.
        restore_best: put the best parameters back at the end.
        keep: the best have the lowest ``"mean"`` loss along the path, the lowest loss at its ``"midpoint"``, which
            is the merged network's, or the lowest ``"barrier"``.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        RebasinError: on a module that is no :class:`RebasinModule`, with both ``prepare`` and ``repair``, or with
            another ``keep``.

    Attributes:
        history: one (step, evaluation) per evaluation of the current or last fit.
        best: the lowest figure so far.
        best_parameters: the re-basin's parameters, scores and log-scales, by name, at that evaluation; empty until
            one is finite.
        told: called after every evaluation, in the Trainer's precision, with the re-basin and what turns a batch into
            that precision; None tells nobody.
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        criterion: Criterion = task_loss,
        *,
        points: int = 11,
        every: int = 1,
        prepare: Prepare | None = None,
        repair: Iterable[Any] | None = None,
        restore_best: bool = False,
        keep: PathFigure = "mean",
        batch: BatchAdapter | None = None,
    ) -> None:
        if keep not in get_args(PathFigure):
            raise RebasinError(
                f"Expected keep to be one of {', '.join(get_args(PathFigure))} but got {keep!r}."
            )
        if prepare is not None and repair is not None:
            raise RebasinError("Expected prepare or repair for the states of the path but got both.")
        self.dataloader = dataloader
        self.criterion = criterion
        self.points = points
        self.every = every
        self.prepare = prepare
        self.repair = repair
        self.restore_best = restore_best
        self.keep = keep
        self.batch = batch
        self.history: list[tuple[int, Any]] = []
        self.best: float = float("inf")
        self.best_parameters: dict[str, Tensor] = {}
        self.told: Callable[[SinkhornRebasin, Callable[[Any], Any]], None] | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Forget earlier fits.

        What a checkpoint kept is loaded after this.
        """
        if stage == "fit":
            self.history, self.best, self.best_parameters = [], float("inf"), {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate where training starts."""
        if not self.history:
            self._evaluate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate after every so many epochs."""
        if (trainer.current_epoch + 1) % self.every == 0:
            evaluation = self._evaluate(trainer, pl_module)
            pl_module.log("barrier", float(evaluation.barrier), prog_bar=True, sync_dist=True)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate the end and restore the best parameters.

        The end is not evaluated twice.
        """
        if not self.history or self.history[-1][0] != trainer.global_step:
            self._evaluate(trainer, pl_module)
        self._restore(pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the best parameters after an empty fit.

        Such a fit was resumed at its end and had no step left to take.
        """
        self._restore(pl_module)

    @property
    def state_key(self) -> str:
        """Name this monitor's state in a checkpoint.

        How it evaluates tells it apart from other monitors of the Trainer.
        """
        return self._generate_state_key(
            points=self.points,
            every=self.every,
            repair=self.repair is not None,
            restore_best=self.restore_best,
            keep=self.keep,
        )

    def _restore(self, pl_module: lightning.LightningModule) -> None:
        if self.restore_best:
            self.restore(rebasin_of(pl_module).rebasin)

    def restore(self, rebasin: SinkhornRebasin) -> None:
        """Put the best parameters so far into a re-basin, if there are any."""
        if self.best_parameters:
            restore_learned(rebasin, self.best_parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        history = [(step, evaluation.to_dict()) for step, evaluation in self.history]
        return {"best": self.best, "best_parameters": self.best_parameters, "history": history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what a checkpoint kept."""
        self.best, self.best_parameters = state_dict["best"], state_dict["best_parameters"]
        self.history = [(step, PathEvaluation.from_dict(data)) for step, data in state_dict["history"]]

    def _evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Any:
        rebasin = rebasin_of(pl_module).rebasin
        prepare, convert = self.prepare, trainer.precision_plugin.convert_input
        with trainer.precision_plugin.val_step_context():
            if self.repair is not None:
                repair = _Converted(self.repair, convert)
                networks = rebasin.reference, rebasin.to_model()
                prepare = RepairAlongPath(*networks, rebasin.spec, repair, batch=self.batch)
            data = self.dataloader
            data = data if isinstance(data, Iterator) else _Converted(data, convert)
            evaluation = evaluate_path(
                rebasin, data, self.criterion, points=self.points, prepare=prepare, batch=self.batch
            )
        self._remember(trainer.global_step, evaluation, evaluation.figure(self.keep), rebasin)
        self._tell(trainer, rebasin)
        return evaluation

    def _remember(self, step: int, evaluation: Any, height: float, rebasin: SinkhornRebasin) -> None:
        """Append an evaluation to the history, and keep the parameters when they are the best."""
        self.history.append((step, evaluation))
        if math.isfinite(height) and height < self.best:
            self.best = height
            self.best_parameters = learned_tensors(rebasin)

    def _tell(self, trainer: lightning.Trainer, rebasin: SinkhornRebasin) -> None:
        """Tell of the evaluation that was remembered last."""
        if self.told is not None:
            with trainer.precision_plugin.val_step_context():
                self.told(rebasin, trainer.precision_plugin.convert_input)


class _Converted:
    """Yield batches in the precision of a Trainer.

    They come as often as they are asked for.
    """

    def __init__(self, batches: Iterable[Any], convert: Callable[[Any], Any]) -> None:
        self.batches, self.convert = batches, convert

    def __iter__(self) -> Iterator[Any]:
        return map(self.convert, self.batches)


def rebasin_of(pl_module: lightning.LightningModule) -> RebasinModule:
    """Return the module if it trains a re-basin.

    Raises:
        RebasinError: it does not.
    """
    if not isinstance(pl_module, RebasinModule):
        raise RebasinError(f"Expected BarrierMonitor on a RebasinModule but got {type(pl_module).__name__}.")
    return pl_module
