"""One progress bar for a whole fit, counted in steps."""

from __future__ import annotations

from typing import Any

import lightning
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

FIGURES = ("train_loss", "temperature", "barrier", "held_out_loss")


class StepProgress(lightning.Callback):
    """Show steps done, time left, and the figures that training logs.

    The figures are the loss, the temperature and the last barrier, or the last loss on held-out data.

    Args:
        description: what is running.

    Example:
        >>> StepProgress("closing").description
        'closing'
    """

    def __init__(self, description: str = "aligning") -> None:
        self.description = description
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            disable=not trainer.is_global_zero,
        )
        total = float(trainer.estimated_stepping_batches)
        self._task = self._progress.add_task(self.description, total=total, figures="")
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            shown = [name for name in FIGURES if name in trainer.callback_metrics]
            figures = "  ".join(f"{name} {float(trainer.callback_metrics[name]):.3f}" for name in shown)
            self._progress.update(self._task, completed=trainer.global_step, figures=figures)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
