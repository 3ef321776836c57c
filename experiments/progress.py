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
