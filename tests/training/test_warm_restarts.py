from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sinkhorn_rebasin import (
    BarrierMonitor,
    RandomPointLoss,
    RebasinModule,
    SinkhornRebasin,
    TemperatureAnnealing,
    WarmRestarts,
    hard_assignment,
    linear,
)
from sinkhorn_rebasin.errors import AssignmentError, RebasinError
from tests.training.fitting import Recorder, loader, trainer


def module(seed: int = 0) -> RebasinModule:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reference, target = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(2))
        rebasin = SinkhornRebasin(reference, target, torch.randn(2, 5), rescale=True)
    return RebasinModule(rebasin, RandomPointLoss(F.cross_entropy), lr=0.1)


def test_the_temperature_runs_through_its_schedule_in_every_cycle(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = [TemperatureAnnealing(linear(4.0, 1.0), cycles=3), recorder]
    trainer(tmp_path, max_epochs=-1, max_steps=12, callbacks=callbacks).fit(module(), loader())
    expected = [4.0, 3.0, 2.0, 1.0] * 3
    assert recorder.temperatures == pytest.approx(expected)


def test_a_cycle_begins_at_the_best_permutations_with_a_forgetful_optimiser(tmp_path: Path) -> None:
    monitor, learner, seen = BarrierMonitor(loader(20), points=3), module(), []

    class Restarts(WarmRestarts):
        def on_train_batch_start(self, *arguments: object) -> None:
            before = {name: s.detach().clone() for name, s in learner.rebasin.scores.items()}
            super().on_train_batch_start(*arguments)  # type: ignore[arg-type]
            after = {name: s.detach().clone() for name, s in learner.rebasin.scores.items()}
            if any(not torch.equal(before[name], after[name]) for name in before):
                kept = monitor.best_parameters
                best = {name: hard_assignment(kept[f"scores.{name}"]) for name in learner.rebasin.scores}
                empty = not learner.trainer.optimizers[0].state
                scales = learner.rebasin.log_scales
                assert all(torch.equal(scales[name], kept[f"log_scales.{name}"]) for name in scales)
                seen.append((learner.trainer.global_step, after, best, empty))

    callbacks = [monitor, Restarts(monitor, cycles=2, noise=0.01)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trainer(tmp_path, max_epochs=-1, max_steps=10, callbacks=callbacks).fit(learner, loader())
    assert [step for step, *_ in seen] == [5]
    _, scores, best, forgotten = seen[0]
    assert forgotten
    for name, indices in best.items():
        matrix = torch.zeros_like(scores[name])
        matrix[torch.arange(len(indices)), indices] = 1
        assert 0 < (scores[name] - matrix).abs().max() < 0.1


def test_impossible_settings_are_errors() -> None:
    monitor = BarrierMonitor(loader())
    with pytest.raises(RebasinError, match="cycles >= 1"):
        WarmRestarts(monitor, cycles=0)
    with pytest.raises(RebasinError, match="noise >= 0"):
        WarmRestarts(monitor, cycles=2, noise=-1.0)
    with pytest.raises(AssignmentError, match="at least one cycle"):
        TemperatureAnnealing(linear(1.0, 0.5), cycles=0)
