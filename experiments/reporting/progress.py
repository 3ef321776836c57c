"""One progress bar for a whole Lightning run, counted in steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import lightning
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor


class StepProgress(lightning.Callback):
    """Shows steps done, time left, and the loss, temperature and barrier that training logs."""

    def __init__(self, description: str = "aligning") -> None:
        self.description = description
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._task: TaskID | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar."""
        total = float(trainer.estimated_stepping_batches)
        self._task = self._progress.add_task(self.description, total=total, figures="")
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Tensor | Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar."""
        if self._task is not None:
            shown = [
                name for name in ("train_loss", "temperature", "barrier") if name in trainer.callback_metrics
            ]
            figures = "  ".join(f"{name} {float(trainer.callback_metrics[name]):.3f}" for name in shown)
            self._progress.update(self._task, completed=trainer.global_step, figures=figures)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._progress.stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


class EpochProgress(lightning.Callback):
    """One bar for many fits in a row, counted in epochs; open it with ``with``.

    Args:
        description: what is running.
        epochs: of all fits together.
    """

    def __init__(self, description: str, epochs: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._task = self._progress.add_task(description, total=epochs, figures="")
        self._started = False

    def __enter__(self) -> EpochProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count the epochs that a stopped run had before."""
        if not self._started:
            self._started = True
            before = int(getattr(pl_module, "task", 0)) * int(trainer.max_epochs or 0) + trainer.current_epoch
            self._progress.update(self._task, completed=before)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Move the bar."""
        loss = trainer.callback_metrics.get("train_loss")
        figures = (
            "" if loss is None else f"task {getattr(pl_module, 'task', 0) + 1}  train_loss {float(loss):.3f}"
        )
        self._progress.update(self._task, advance=1, figures=figures)


def quiet_trainer(
    steps: int, epoch: int, callbacks: Sequence[lightning.Callback], title: str, *, bfloat16: bool = False
) -> lightning.Trainer:
    """A CPU Trainer with epochs of at most so many steps, a progress bar and nothing else on the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    return lightning.Trainer(
        max_steps=steps,
        limit_train_batches=epoch,
        accelerator="cpu",
        precision="bf16-mixed" if bfloat16 else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[*callbacks, StepProgress(title)],
    )
