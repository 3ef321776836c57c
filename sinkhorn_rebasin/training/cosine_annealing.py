"""Learning rates that rise for a few steps and fall to zero by a cosine."""

from __future__ import annotations

import math
from typing import Any

import lightning

WARM_UP = 20


class CosineAnnealing(lightning.Callback):
    r"""Let all learning rates rise, then fall to zero.

    .. math:: \eta_i = \eta \, \min(1, (i + 1) / 20) \, \tfrac12 \bigl(1 + \cos(\pi i / n)\bigr)

    at step i of n, with the rates η that the optimizer begins with.

    Args:
        steps: n; steps after it have rate zero.

    Example:
        >>> annealing = CosineAnnealing(100)
        >>> round(annealing.factor(0), 3), round(annealing.factor(50), 3), annealing.factor(100)
        (0.05, 0.5, 0.0)

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), without restarts.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def factor(self, step: int) -> float:
        """Return what rates are multiplied by at a step."""
        share = min(1.0, step / max(1, self.steps))
        return min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * share))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_unused: Any
    ) -> None:
        """Set the rates of all parameter groups."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                rate = group.setdefault("initial_lr", group["lr"])
                group["lr"] = rate * self.factor(trainer.global_step)
