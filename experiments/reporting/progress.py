"""One progress bar for many Lightning fits in a row."""

from __future__ import annotations

import lightning
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
