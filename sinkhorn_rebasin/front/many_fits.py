"""The fits of several networks' permutations and scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.front.data import AlignmentData, kept_order
from sinkhorn_rebasin.front.gain import PartLosses, gain, simplest
from sinkhorn_rebasin.front.judge import height
from sinkhorn_rebasin.front.mean_loss import LossOfMean
from sinkhorn_rebasin.front.parts import Parts, parts_for
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.losses import SimplexLoss
from sinkhorn_rebasin.losses.base import losses_on, mean_loss
from sinkhorn_rebasin.merging import JointRebasin
from sinkhorn_rebasin.rebasin.candidates import learned_tensors, restore_learned

SAME = 1e-6
"""Losses of one alignment in two computations differ by less than this part."""


@dataclass
class ManyFits:
    """Learn permutations and scales of several networks.

    What is best is kept.

    Args:
        data: training batches, and held-out ones that decide.
        judge: the loss of the mean, put right as it will be used.
        loss: what is trained.
        recipe: how long and how fast.
        options: of the Trainer.
        progress: show bars.
        parts: of the held-out data, on which gains are measured; made when they are needed.
    """

    data: AlignmentData
    judge: LossOfMean
    loss: SimplexLoss
    recipe: Recipe
    options: Mapping[str, Any]
    progress: bool
    parts: Parts | None = None

    def best(self, joints: Sequence[JointRebasin], names: Sequence[str]) -> tuple[JointRebasin, str]:
        """Return the first start that none is visibly better than.

        Beside it comes what is told of all.

        Args:
            joints: at their starts, the simplest first.
            names: of the starts.
        """
        losses = [self.judged(joint) for joint in joints]
        best = simplest([self._on_parts(joint) for joint in joints])
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in zip(names, losses, strict=True))
        what = "loss of the mean, repaired," if self.judge.repair else "loss of the mean"
        return joints[best], f"start: {names[best]} ({what} on held-out data: {told})"

    def judged(self, joint: JointRebasin) -> float:
        """Return the loss of the mean on held-out data.

        It is infinite where it is not finite.
        """
        return height(mean_loss(joint, self.judge, self.data.validation))

    def _on_parts(self, joint: JointRebasin) -> PartLosses:
        """Return the loss of the mean on every part of the held-out data."""
        if self.parts is None:
            self.parts = parts_for(self.data.validation, lambda parts: self._mean_on(joint, parts).mean)
        return self._mean_on(joint, self.parts)

    def _mean_on(self, joint: JointRebasin, parts: Parts) -> PartLosses:
        values = losses_on(joint, self.judge, parts.batches)
        return PartLosses(torch.tensor(values, dtype=torch.float64), parts.shares)

    def run(self, joint: JointRebasin) -> tuple[str, ...]:
        """Anneal soft permutations, then settle the scales.

        The start is put back where no step was better.

        Returns:
            What is told of the fits.
        """
        first, start, before = learned_tensors(joint), self.judged(joint), self._on_parts(joint)
        if not self._anneal(joint) and joint.log_scales:
            self._close(joint)
        end = self.judged(joint)
        if not end < start - SAME * abs(start):
            restore_learned(joint, first)
            return ("No step made the start better on held-out data, so it is kept.",)
        gained = gain(before, self._on_parts(joint))
        if not gained.counts:
            restore_learned(joint, first)
            return (gained.told(),)
        return (f"loss of the mean on held-out data: {start:.4f} at the start, {end:.4f} now",)

    def _anneal(self, joint: JointRebasin) -> bool:
        """Anneal again and again from the best.

        Tell whether it was interrupted.
        """
        from sinkhorn_rebasin.training import TemperatureAnnealing, WarmRestarts

        recipe, monitor = self.recipe, self._monitor()
        cycles = max(1, min(recipe.cycles, recipe.steps))
        callbacks = [
            TemperatureAnnealing(geometric(*recipe.temperatures), cycles),
            monitor,
            WarmRestarts(monitor, cycles, recipe.noise),
        ]
        rates = {"lr": recipe.learning_rate, "scale_lr": recipe.scale_learning_rate}
        return self._fit(joint, "soft", recipe.steps, callbacks, monitor, **rates)

    def _close(self, joint: JointRebasin) -> bool:
        """Train the scales alone by a falling rate.

        Permutations stay as they are.
        """
        from sinkhorn_rebasin.training import CosineAnnealing

        recipe, monitor = self.recipe, self._monitor()
        callbacks = [CosineAnnealing(recipe.closing_steps), monitor]
        rates = {"hard": True, "scale_lr": recipe.closing_learning_rate}
        return self._fit(joint, "closing", recipe.closing_steps, callbacks, monitor, **rates)

    def _monitor(self) -> Any:
        from sinkhorn_rebasin.training import LossMonitor

        return LossMonitor(self.judge, self.data.validation, restore_best=True)

    def _fit(
        self, joint: JointRebasin, stage: str, steps: int, callbacks: list[Any], monitor: Any, **rates: Any
    ) -> bool:
        from sinkhorn_rebasin.training import JointRebasinModule, bounded_fit

        if not steps:
            return False
        module = JointRebasinModule(joint, self.loss, scale_decay=self.recipe.scale_decay, **rates)
        with kept_order(self.data.train):
            end = bounded_fit(
                module,
                self.data.train,
                steps=steps,
                epoch=self.recipe.evaluate_every,
                callbacks=callbacks,
                options=self.options,
                title=stage if self.progress else None,
            )
        if end.interrupted:
            monitor.restore(joint)
        return end.interrupted
