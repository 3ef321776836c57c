"""Learning rates that rise for a few steps and fall to zero by a cosine."""

from __future__ import annotations

import math
from typing import Any

import lightning

from sinkhorn_rebasin.errors import RecipeError

WARM_UP = 20


class CosineAnnealing(lightning.Callback):
    r"""Let all learning rates rise, then fall to zero.

    .. math:: \eta_i = \eta \, \min(1, (i + 1) / 20) \, \tfrac12 \bigl(1 + \cos(\pi i / n)\bigr)

    at step i of n, with the rates η that the optimizer begins with. Each of several cycles begins anew with i = 0.

    Args:
        steps: n, of each cycle; steps after the last cycle have rate zero.
        cycles: how many; the vertices of a :class:`LearnedComplex` take one each.

    Raises:
        RecipeError: fewer than one cycle.

    Example:
        >>> annealing = CosineAnnealing(100)
        >>> round(annealing.factor(0), 3), round(annealing.factor(50), 3), annealing.factor(100)
        (0.05, 0.5, 0.0)
        >>> [round(CosineAnnealing(40, cycles=2).factor(step), 3) for step in (20, 40, 60, 80)]
        [0.5, 0.05, 0.5, 0.0]

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017).
    """

    def __init__(self, steps: int, cycles: int = 1) -> None:
        if cycles < 1:
            raise RecipeError(f"Expected at least one cycle but got {cycles}.")
        self.steps, self.cycles = steps, cycles

    def factor(self, step: int) -> float:
        """Return what rates are multiplied by at a step."""
        length = max(1, self.steps)
        if step >= length * self.cycles:
            return 0.0
        step %= length
        share = step / length
        return min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * share))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_unused: Any
    ) -> None:
        """Set the rates of all parameter groups."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                rate = group.setdefault("initial_lr", group["lr"])
                group["lr"] = rate * self.factor(trainer.global_step)
