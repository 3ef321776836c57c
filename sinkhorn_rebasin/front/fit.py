"""The fits of a re-basin: annealed cycles, maps at hard permutations, then the scales alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.front.data import kept_order
from sinkhorn_rebasin.front.evaluations import Evaluation, figures_of, kept_evaluations
from sinkhorn_rebasin.front.judge import Judge, height
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.schedules import Schedule, best_of, schedules, trial_steps
from sinkhorn_rebasin.losses import RandomPointLoss, RebasinLoss, RepairLoss
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.learned_permutations import permutations_learned

if TYPE_CHECKING:
    from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule
    from sinkhorn_rebasin.training.bounded_fit import FitEnd

PILOT_STEPS = 12
PILOT_SHARE = 0.2
LAST_EVALUATIONS = 3
"""The result is judged after the fits, and so is its gain over the start."""


@dataclass
class Fits:
    """Run the fits of one re-basin, and keep what is best of each.

    Args:
        rebasin: what is trained.
        judge: decides what is best.
        train: training batches.
        recipe: how long and how fast.
        options: of the Trainer.
        progress: show bars.
        loss: what is trained instead of the criterion at random points of the path.
        stops: the step after which each stage ends, where that was decided elsewhere; held-out data decide nothing
            then. A stage that ends before its first step is left out.
        label: what a bar says after the name of a stage.
        kept: every evaluation of each stage: its step, the verdict, and the loss on every part of the held-out data;
            None keeps none.
    """

    rebasin: SinkhornRebasin
    judge: Judge
    train: Any
    recipe: Recipe
    options: Mapping[str, Any]
    progress: bool
    loss: RebasinLoss | None
    stops: Mapping[str, int] | None = None
    label: str = ""
    kept: dict[str, list[Evaluation]] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    steps: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def run(self, began: float) -> None:
        """Anneal, then close.

        Args:
            began: when the call began, in seconds of ``time.monotonic``.
        """
        ends: tuple[float | None, float | None] = (None, None)
        if self.recipe.seconds is not None:
            ends = self._shorten(began, self.recipe.seconds)
        if self.rebasin.continuous:
            if self.recipe.permutation_steps and self.rebasin.scores:
                with permutations_learned(self.rebasin):
                    self._anneal(self.recipe.permutation_steps, ends[0])
            if self.recipe.map_steps and not self.interrupted:
                self._turn(ends[0])
        elif self.recipe.steps:
            self._anneal(self.recipe.steps, ends[0])
        if self.recipe.closing_steps and self.rebasin.log_scales and not self.interrupted:
            self._close(ends[1])

    def _anneal(self, steps: int, deadline: float | None) -> None:
        """Anneal again and again from the best permutations so far, batch norm on the mixture's statistics.

        Maps of continuous symmetries are learned with them.
        """
        from sinkhorn_rebasin.training import TemperatureAnnealing, WarmRestarts

        recipe, monitor = self.recipe, self._monitor(**self._preparation())
        schedule = self._tried(steps, deadline)
        if self.interrupted:
            return
        cycles = min(recipe.cycles, steps)
        callbacks = [
            TemperatureAnnealing(geometric(*schedule.temperatures), cycles=cycles),
            monitor,
            WarmRestarts(monitor, cycles, recipe.noise),
        ]
        self._fit("soft", self._soft_module(schedule), monitor, steps, callbacks, deadline)

    def _soft_module(self, schedule: Schedule) -> RebasinModule:
        return self._module(
            self._soft_loss(),
            lr=schedule.learning_rate,
            scale_lr=schedule.scale_learning_rate,
            rotation_lr=self.recipe.map_learning_rate,
        )

    def _tried(self, steps: int, deadline: float | None) -> Schedule:
        """Return the schedule whose trial ends best."""
        candidates = schedules(self.recipe)
        heights = self.trial_heights(steps, deadline)
        if not heights:
            return candidates[0]
        best = best_of(candidates[: len(heights)], heights)
        self.notes += (f"The best of {len(heights)} short trials is trained: {best}.",)
        return best

    def trial_heights(self, steps: int, deadline: float | None = None) -> list[float]:
        """Return how each schedule's trial ends; none where nothing is to be chosen.

        Each anneals once, always from the start, which the re-basin is put back to.
        """
        from sinkhorn_rebasin.training import TemperatureAnnealing

        steps, heights = trial_steps(self.recipe, steps), list[float]()
        if not steps:
            return heights
        first = {name: value.clone() for name, value in self.rebasin.state_dict().items()}
        for schedule in schedules(self.recipe):
            monitor = self._monitor(**self._preparation(), restore_best=False)
            callbacks = [TemperatureAnnealing(geometric(*schedule.temperatures)), monitor]
            self._fit("trial", self._soft_module(schedule), monitor, steps, callbacks, deadline, every=steps)
            if self.interrupted:
                break
            # Processes that a strategy starts keep what their monitor saw.
            end = monitor.history[-1][1] if monitor.history else self.judge.of_rebasin(self.rebasin)
            heights.append(height(end, self.recipe.keep))
            self.rebasin.load_state_dict(first)
        return heights

    def _preparation(self) -> dict[str, Any]:
        """Return what puts a path's networks right.

        It is REPAIR, or batch norm on the mixture's statistics.
        """
        judge = self.judge
        return {"repair": judge.statistics} if judge.repair else {"prepare": judge.batch_norm}

    def _turn(self, deadline: float | None) -> None:
        """Learn the maps of continuous symmetries at permutations that stay, by a rate that falls to zero."""
        from sinkhorn_rebasin.training import CosineAnnealing

        recipe = self.recipe
        monitor = self._monitor(prepare=self.judge.batch_norm)
        module = self._module(
            self._soft_loss(), scale_lr=recipe.scale_learning_rate, rotation_lr=recipe.map_learning_rate
        )
        callbacks = [CosineAnnealing(recipe.map_steps), monitor]
        self._fit("maps", module, monitor, recipe.map_steps, callbacks, deadline)

    def _close(self, deadline: float | None) -> None:
        """Train the scales alone, at permutations that stay, batch norm on statistics between the networks'."""
        recipe = self.recipe
        monitor = self._monitor()
        loss = self.loss or RandomPointLoss(
            self._criterion(), *recipe.closing_positions, batch=self.judge.batch
        )
        module = self._module(loss, hard=True, scale_lr=recipe.closing_learning_rate)
        self._fit("closing", module, monitor, recipe.closing_steps, [monitor], deadline)

    def _soft_loss(self) -> RebasinLoss:
        if self.loss is not None:
            return self.loss
        judge = self.judge
        if not judge.repair:
            return RandomPointLoss(self._criterion(), batch=judge.batch)
        networks = judge.reference, judge.target, judge.spec
        repair = RepairAlongPath(*networks, judge.statistics, batch=judge.batch)
        return RepairLoss(self._criterion(), repair, batch=judge.batch)

    def _criterion(self) -> Any:
        assert self.judge.criterion is not None
        return self.judge.criterion

    def _module(self, loss: RebasinLoss, **options: Any) -> RebasinModule:
        from sinkhorn_rebasin.training import RebasinModule

        # The package's losses read the batch themselves; a loss of the caller's is given the adapted pair.
        batch = self.judge.batch if self.loss is not None else None
        return RebasinModule(self.rebasin, loss, scale_decay=self.recipe.scale_decay, batch=batch, **options)

    def _monitor(self, *, restore_best: bool = True, **preparation: Any) -> BarrierMonitor:
        from sinkhorn_rebasin.training import BarrierMonitor, LossMonitor

        judge = self.judge
        restore_best = restore_best and self.stops is None
        options: dict[str, Any] = {"restore_best": restore_best, "batch": judge.batch}
        options["every"] = self._epochs_between()
        if judge.criterion is None:
            assert judge.loss is not None
            return LossMonitor(judge.loss, judge.validation, **options)
        options |= {"points": judge.points, "keep": self.recipe.keep, **preparation}
        return BarrierMonitor(judge.validation, judge.criterion, **options)

    def _epochs_between(self) -> int:
        """Passes over short training data between two evaluations."""
        try:
            return max(1, self.recipe.evaluate_every // max(1, len(self.train)))
        except TypeError:  # data of unknown length
            return 1

    def _fit(
        self,
        stage: str,
        module: RebasinModule,
        monitor: BarrierMonitor,
        steps: int,
        callbacks: list[Any],
        deadline: float | None,
        every: int | None = None,
    ) -> None:
        from sinkhorn_rebasin.training import bounded_fit

        stop = None if self.stops is None else self.stops.get(stage)
        if stop == 0:
            return
        if self.kept is not None:
            self.kept[stage] = kept_evaluations(monitor, self.judge, self.recipe.keep)
        with kept_order(self.train):
            end = bounded_fit(
                module,
                self.train,
                steps=steps,
                epoch=every or self.recipe.evaluate_every,
                callbacks=callbacks,
                options=self.options,
                title=f"{stage}{self.label}" if self.progress else None,
                deadline=deadline,
                stop=stop,
            )
        if end.interrupted:
            self.interrupted = True
            monitor.restore(self.rebasin)
        before = sum(self.steps.values())
        self.steps[stage] = self.steps.get(stage, 0) + end.steps
        self.history += [
            {"stage": stage, "step": before + step, **figures_of(verdict)}
            for step, verdict in monitor.history
        ]

    def _shorten(self, began: float, seconds: float) -> tuple[float, float]:
        """Shorten the recipe to what is left of the time; return when either fit must end."""
        clock = time.monotonic()
        self.judge.of_rebasin(self.rebasin)
        evaluation = time.monotonic() - clock
        per_step = self._pilot(began + PILOT_SHARE * seconds).seconds_per_step
        recipe, until = self.recipe, began + seconds - LAST_EVALUATIONS * evaluation
        closing = recipe.closing_steps if self.rebasin.log_scales else 0
        soft = recipe.permutation_steps if self.rebasin.continuous else recipe.steps
        soft = soft if self.rebasin.scores else 0
        first = soft + recipe.trials * trial_steps(recipe, soft)
        if self.rebasin.continuous:
            first += recipe.map_steps
        costs = [steps * (per_step + evaluation / recipe.evaluate_every) for steps in (first, closing)]
        left = until - time.monotonic()
        self.recipe = recipe.shortened(min(1.0, max(0.0, left) / max(sum(costs), 1e-9)))
        return until - left * costs[1] / max(sum(costs), 1e-9), until

    def _pilot(self, deadline: float) -> FitEnd:
        """Time a few steps, and put everything back."""
        from sinkhorn_rebasin.training import bounded_fit

        before = {name: value.clone() for name, value in self.rebasin.state_dict().items()}
        module = self._module(self._soft_loss(), lr=self.recipe.learning_rate)
        with kept_order(self.train):
            end = bounded_fit(
                module,
                self.train,
                steps=PILOT_STEPS,
                epoch=PILOT_STEPS,
                callbacks=[],
                options={**self.options, "logger": False},
                deadline=deadline,
            )
        self.rebasin.load_state_dict(before)
        if end.interrupted:
            raise KeyboardInterrupt
        return end
