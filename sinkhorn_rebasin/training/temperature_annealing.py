"""The callback that turns the temperature."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from sinkhorn_rebasin.assignment import TemperatureSchedule
from sinkhorn_rebasin.errors import AssignmentError
from sinkhorn_rebasin.training.rebasin_module import RebasinModule


class TemperatureAnnealing(lightning.Callback):
    """Sets the temperature before every step to ``schedule(progress)``, progress running from 0 to 1.

    The temperature is a function of the step alone, so a resumed run continues where it stopped.

    Args:
        schedule: progress to temperature, such as ``geometric(1.0, 0.1)``.

    Raises:
        AssignmentError: when the run has no known end (neither ``max_steps`` nor ``max_epochs`` and a dataloader
            with a length).

    Example:
        >>> from sinkhorn_rebasin.assignment import geometric
        >>> TemperatureAnnealing(geometric(1.0, 0.1)).schedule(1.0)
        0.1
    """

    def __init__(self, schedule: TemperatureSchedule) -> None:
        self.schedule = schedule

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the temperature of this step."""
        if not isinstance(pl_module, RebasinModule):
            raise AssignmentError(
                f"Expected TemperatureAnnealing on a RebasinModule but got {type(pl_module).__name__}."
            )
        steps = trainer.estimated_stepping_batches
        if not 0 < steps < float("inf"):
            raise AssignmentError(
                "Expected a training run whose length is known but it has no end; give the Trainer max_steps, or "
                "max_epochs and a dataloader with a length."
            )
        progress = trainer.global_step / max(1, steps - 1)
        with torch.no_grad():
            pl_module.rebasin.temperature.fill_(self.schedule(progress))
