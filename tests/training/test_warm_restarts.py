from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sinkhorn_rebasin import JointRebasin, RandomPointLoss, SimplexLoss, SinkhornRebasin, hard_assignment
from sinkhorn_rebasin.assignment.temperature import linear
from sinkhorn_rebasin.errors import AssignmentError, RebasinError
from sinkhorn_rebasin.training import (
    BarrierMonitor,
    JointRebasinModule,
    LossMonitor,
    RebasinModule,
    TemperatureAnnealing,
    WarmRestarts,
)
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


class Forgotten(lightning.Callback):
    """Writes down the steps that begin with an optimiser that remembers nothing."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if not trainer.optimizers[0].state:
            self.steps.append(trainer.global_step)


def test_a_second_fit_restarts_as_well(tmp_path: Path) -> None:
    monitor, seen = BarrierMonitor(loader(20), points=3), Forgotten()
    callbacks = [monitor, WarmRestarts(monitor, cycles=2), seen]
    for seed in range(2):
        trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(module(seed), loader())
    assert seen.steps == [0, 5] * 2


def test_what_a_checkpoint_kept_outlives_the_setup_of_a_resumed_fit(tmp_path: Path) -> None:
    class Start(lightning.Callback):
        """Looks at what is known when the resumed fit begins."""

        def on_train_start(self, *_: Any) -> None:
            begun.append(restarts.state_dict()["restarted_at"])

    begun: list[int] = []
    for resume in (None, tmp_path / "last.ckpt"):
        monitor = BarrierMonitor(loader(20), points=3)
        restarts = WarmRestarts(monitor, cycles=2)
        fit = trainer(tmp_path, max_epochs=2 if resume is None else 3, callbacks=[monitor, restarts, Start()])
        fit.fit(module(), loader(), ckpt_path=resume)
        fit.save_checkpoint(tmp_path / "last.ckpt")
    assert begun == [0, 5]


def test_a_monitor_that_is_not_among_the_callbacks_is_an_error(tmp_path: Path) -> None:
    monitor = BarrierMonitor(loader(20), points=3)
    for others in ([], [BarrierMonitor(loader(20), points=3)]):
        fit = trainer(tmp_path, callbacks=[*others, WarmRestarts(monitor, cycles=2)])
        with pytest.raises(RebasinError, match="BarrierMonitor listed before WarmRestarts"):
            fit.fit(module(), loader())


def test_a_monitor_that_saw_no_finite_loss_is_an_error(tmp_path: Path) -> None:
    monitor = BarrierMonitor(loader(20), lambda outputs, labels: outputs.sum() * float("nan"), points=3)
    fit = trainer(tmp_path, callbacks=[monitor, WarmRestarts(monitor, cycles=2)])
    with pytest.raises(RebasinError, match="got none at step 5: none of its 2 evaluations"):
        fit.fit(module(), loader())


def test_sign_scores_are_put_back_as_they_were_best(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = (nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)) for _ in range(2))
        learner = RebasinModule(
            SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True), RandomPointLoss(F.cross_entropy), lr=0.1
        )
    monitor, seen = BarrierMonitor(loader(20), points=3), []

    class Signs(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                kept = monitor.best_parameters
                seen.extend(
                    torch.equal(s, kept[f"sign_scores.{n}"]) for n, s in learner.rebasin.sign_scores.items()
                )

    trainer(tmp_path, callbacks=[monitor, WarmRestarts(monitor, cycles=2), Signs()]).fit(learner, loader())
    assert seen == [True]


def test_impossible_settings_are_errors() -> None:
    monitor = BarrierMonitor(loader())
    with pytest.raises(RebasinError, match="cycles >= 1"):
        WarmRestarts(monitor, cycles=0)
    with pytest.raises(RebasinError, match="noise >= 0"):
        WarmRestarts(monitor, cycles=2, noise=-1.0)
    with pytest.raises(AssignmentError, match="at least one cycle"):
        TemperatureAnnealing(linear(1.0, 0.5), cycles=0)


def test_every_one_of_several_rebasins_begins_anew(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(3)]
    joint, seen = JointRebasin(nets, torch.randn(2, 5)), []
    monitor = LossMonitor(SimplexLoss(F.cross_entropy), [next(iter(loader(20)))])

    class Seen(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                seen.extend(s.detach().clone() for each in joint.rebasins for s in each.scores.values())

    callbacks = [monitor, WarmRestarts(monitor, cycles=2, noise=0.0), Seen()]
    learner = JointRebasinModule(joint, SimplexLoss(F.cross_entropy), lr=0.3)
    trainer(tmp_path, max_epochs=-1, max_steps=10, callbacks=callbacks).fit(learner, loader())
    assert len(seen) == 2
    for scores in seen:
        assert set(scores.flatten().tolist()) == {0.0, 1.0}
