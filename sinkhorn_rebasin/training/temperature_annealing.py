"""The callback that turns the temperature."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from sinkhorn_rebasin.assignment import TemperatureSchedule
from sinkhorn_rebasin.errors import AssignmentError
from sinkhorn_rebasin.training.rebasin_module import RebasinModule


class TemperatureAnnealing(lightning.Callback):
    """Set the temperature before every step.

    It is ``schedule(progress)``, progress running from 0 to 1 in each cycle.

    The temperature is a function of the step alone, so a resumed run continues where it stopped.

    Args:
        schedule: progress to temperature, such as ``geometric(1.0, 0.1)``.
        cycles: how often the schedule runs from its beginning to its end.

    Raises:
        AssignmentError: when there is not at least one cycle, or when the run has no known end (neither
            ``max_steps`` nor ``max_epochs`` and a dataloader with a length).

    Example:
        >>> from sinkhorn_rebasin.assignment.temperature import geometric
        >>> TemperatureAnnealing(geometric(1.0, 0.1)).schedule(1.0)
        0.1
    """

    def __init__(self, schedule: TemperatureSchedule, cycles: int = 1) -> None:
        if cycles < 1:
            raise AssignmentError(f"Expected at least one cycle but got {cycles}.")
        self.schedule = schedule
        self.cycles = cycles

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
        # In whole numbers, in which a cycle begins at the very step at which restarts do.
        step, steps = min(trainer.global_step, int(steps) - 1), int(steps)
        cycle = step * self.cycles // steps
        start, end = (-(-number * steps // self.cycles) for number in (cycle, cycle + 1))
        done = (step - start) / max(1, end - start - 1)
        with torch.no_grad():
            pl_module.rebasin.temperature.fill_(self.schedule(done))
