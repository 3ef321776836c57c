from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from sinkhorn_rebasin import (
    BatchNormReset,
    MidpointLoss,
    PathEvaluation,
    RepairAlongPath,
    SinkhornRebasin,
    WeightDistance,
    evaluate_path,
)
from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule, data_free_steps
from tests.rebasin.rebasin_problems import built, inputs
from tests.training.fitting import Recorder, dataset, loader, scores_of, trainer


def worsening(rebasin: Any, batch: Any) -> torch.Tensor:
    """Makes the barrier grow: gradient ascent on the midpoint."""
    return -MidpointLoss(F.cross_entropy)(rebasin, batch)


def test_history_agrees_with_the_evaluation_of_the_same_scores(tmp_path: Path) -> None:
    rebasin = built()[2]
    monitor, recorder = BarrierMonitor(loader(), points=5), Recorder()
    start = evaluate_path(rebasin, loader(), points=5)
    fit = trainer(tmp_path, max_epochs=3, callbacks=[monitor, recorder])
    fit.fit(RebasinModule(rebasin, worsening, lr=1.0), loader())
    assert [step for step, _ in monitor.history] == [0, 5, 10, 15]
    assert torch.equal(monitor.history[0][1].losses, start.losses)
    end = evaluate_path(rebasin, loader(), points=5)
    assert torch.equal(monitor.history[-1][1].losses, end.losses)
    assert not torch.equal(start.losses, end.losses)
    assert float(fit.callback_metrics["barrier"]) == pytest.approx(end.barrier, rel=1e-6)


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_data_come_in_the_type_of_the_trainer(tmp_path: Path, repaired: bool, precision: Any) -> None:
    rebasin = built()[2]
    options = {"repair": loader()} if repaired else {}
    monitor = BarrierMonitor(loader(), points=5, **options)
    fit = trainer(tmp_path, max_epochs=1, callbacks=[monitor], precision=precision)
    fit.fit(RebasinModule(rebasin, MidpointLoss(F.cross_entropy)), loader())
    dtype = torch.float64 if precision == "64-true" else torch.bfloat16
    converted = [(x.to(dtype), labels) for x, labels in loader()]
    rebasin.to(dtype)
    prepare = (
        RepairAlongPath(rebasin.reference, rebasin.to_model(), rebasin.spec, converted) if repaired else None
    )
    losses = evaluate_path(rebasin, converted, points=5, prepare=prepare).losses
    torch.testing.assert_close(monitor.history[-1][1].losses, losses)


def test_several_monitors_are_kept_apart_in_checkpoints(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="last")
    monitors = [BarrierMonitor(loader(), points=3), BarrierMonitor(loader(), points=5, restore_best=True)]
    fit = trainer(tmp_path, max_epochs=1, callbacks=[*monitors, saving])
    fit.fit(RebasinModule(built()[2], MidpointLoss(F.cross_entropy)), loader())
    again = [BarrierMonitor(loader(), points=3), BarrierMonitor(loader(), points=5, restore_best=True)]
    fit = trainer(tmp_path, max_epochs=2, callbacks=[*again, saving])
    fit.fit(
        RebasinModule(built()[2], MidpointLoss(F.cross_entropy)), loader(), ckpt_path=tmp_path / "last.ckpt"
    )
    for one, other in zip(monitors, again, strict=True):
        assert [step for step, _ in other.history] == [0, 5, 10]
        assert torch.equal(one.history[1][1].losses, other.history[1][1].losses)


@pytest.mark.parametrize("repaired", [False, True])
def test_the_path_is_evaluated_in_the_precision_of_the_trainer(tmp_path: Path, repaired: bool) -> None:
    rebasin = built()[2]
    options = {"repair": loader()} if repaired else {}
    monitor = BarrierMonitor(loader(), points=5, **options)
    fit = trainer(tmp_path, max_epochs=1, callbacks=[monitor], precision="bf16-mixed")
    fit.fit(RebasinModule(rebasin, MidpointLoss(F.cross_entropy), lr=0.0), loader())
    with torch.autocast("cpu", torch.bfloat16):
        prepare = (
            RepairAlongPath(rebasin.reference, rebasin.to_model(), rebasin.spec, loader())
            if repaired
            else None
        )
        coarse = evaluate_path(rebasin, loader(), points=5, prepare=prepare)
    assert torch.equal(monitor.history[-1][1].losses, coarse.losses)
    assert not torch.equal(evaluate_path(rebasin, loader(), points=5).losses, coarse.losses)


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 5, 10, 15]), (2, [0, 10, 15]), (5, [0, 15])])
def test_the_last_scores_are_always_evaluated(tmp_path: Path, every: int, steps: list[int]) -> None:
    monitor = BarrierMonitor(loader(), points=3, every=every)
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
    trainer(tmp_path, max_epochs=3, callbacks=[monitor]).fit(module, loader())
    assert [step for step, _ in monitor.history] == steps


@pytest.mark.parametrize("loss", [worsening, MidpointLoss(F.cross_entropy)], ids=["worsening", "improving"])
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_scores_are_put_back(tmp_path: Path, loss: Any, restore: bool) -> None:
    rebasin = built()[2]
    monitor, recorder = BarrierMonitor(loader(), points=5, restore_best=restore), Recorder()
    module = RebasinModule(rebasin, loss, lr=1.0)
    trainer(tmp_path, max_epochs=4, callbacks=[monitor, recorder]).fit(module, loader())
    heights = [float(evaluation.losses.mean()) for _, evaluation in monitor.history]
    assert len(set(heights)) > 1
    after = float(evaluate_path(rebasin, loader(), points=5).losses.mean())
    assert after == pytest.approx(min(heights) if restore else heights[-1], rel=1e-9)
    assert monitor.best == min(heights)


def test_scales_are_put_back_with_the_scores(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(2))
        rebasin = SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True)
    monitor = BarrierMonitor(loader(), points=5, restore_best=True)
    trainer(tmp_path, max_epochs=3, callbacks=[monitor]).fit(RebasinModule(rebasin, worsening), loader())
    assert monitor.best == float(monitor.history[0][1].losses.mean())
    assert torch.equal(rebasin.log_scales["0"], torch.zeros(1, 6))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path: Path, value: float) -> None:
    heights = iter([1.0, value, 2.0])

    class Falling(BarrierMonitor):
        def _evaluate(self, *arguments: Any) -> Any:
            now = next(heights)
            self.criterion = lambda outputs, labels: outputs.sum() * 0 + now
            return super()._evaluate(*arguments)

    monitor, module = Falling(loader(), points=3), RebasinModule(built()[2], worsening, lr=1.0)
    start = scores_of(module)
    trainer(tmp_path, max_epochs=2, callbacks=[monitor]).fit(module, loader())
    assert monitor.best == 1.0
    assert all(torch.equal(monitor.best_parameters[f"scores.{name}"], start[name]) for name in start)


def test_a_second_fit_starts_anew(tmp_path: Path) -> None:
    monitor = BarrierMonitor(loader(), points=3, restore_best=True)
    best = RebasinModule(built(start="weight_matching", noise=0.0)[2], MidpointLoss(F.cross_entropy))
    trainer(tmp_path, max_epochs=1, callbacks=[monitor]).fit(best, loader())
    first = monitor.best
    other = RebasinModule(built()[2], worsening)
    trainer(tmp_path, max_epochs=1, callbacks=[monitor]).fit(other, loader())
    assert [step for step, _ in monitor.history] == [0, 5]
    assert monitor.best != first
    assert any(not torch.equal(scores_of(best)[name], scores_of(other)[name]) for name in scores_of(best))


def test_watching_changes_nothing(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [BarrierMonitor(loader(shuffle=True), points=3)]):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
            trainer(tmp_path, callbacks=callbacks).fit(module, loader(shuffle=True))
            results.append({**module.rebasin.state_dict(), "random": torch.get_rng_state()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_batch_norm_is_reset_where_asked(tmp_path: Path) -> None:
    rebasin = built("residual")[2]
    batches = [(inputs("residual", seed), torch.arange(4) % 3) for seed in range(3)]
    prepare = BatchNormReset(batches)
    monitor = BarrierMonitor(batches, points=3, prepare=prepare)
    fit = trainer(tmp_path, max_epochs=1, callbacks=[monitor])
    fit.fit(RebasinModule(rebasin, WeightDistance()), data_free_steps(2))
    found = monitor.history[-1][1].losses
    assert torch.equal(found, evaluate_path(rebasin, batches, points=3, prepare=prepare).losses)
    assert not torch.equal(found, evaluate_path(rebasin, batches, points=3).losses)


def test_another_module_is_an_error(tmp_path: Path) -> None:
    class Other(lightning.LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)

    with pytest.raises(RebasinError, match="Other"):
        trainer(tmp_path, callbacks=[BarrierMonitor(loader())]).fit(Other(), data_free_steps(2))


def test_repair_is_that_of_the_permutations_of_the_moment(tmp_path: Path) -> None:
    rebasin, statistics = built()[2], [dataset().tensors[0]]
    monitor = BarrierMonitor(loader(), points=3, repair=statistics)
    trainer(tmp_path, max_epochs=2, callbacks=[monitor]).fit(
        RebasinModule(rebasin, worsening, lr=1.0), loader()
    )
    repair = RepairAlongPath(rebasin.reference, rebasin.to_model(), rebasin.spec, statistics)
    expected = evaluate_path(rebasin, loader(), points=3, prepare=repair)
    assert torch.equal(monitor.history[-1][1].losses, expected.losses)
    assert not torch.equal(monitor.history[0][1].losses, expected.losses)
    assert not torch.equal(evaluate_path(rebasin, loader(), points=3).losses, expected.losses)
    with pytest.raises(RebasinError, match="both"):
        BarrierMonitor(loader(), repair=statistics, prepare=repair)


@pytest.mark.parametrize(("keep", "step"), [("mean", 5), ("midpoint", 10), ("barrier", 15)])
def test_the_best_is_that_of_the_figure_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Any, step: int
) -> None:
    # Losses at λ = 0, ½ and 1; each later one is the lowest of one figure alone.
    losses = iter([(9.0, 9.0, 9.0), (1.0, 4.0, 1.0), (7.0, 3.0, 1.0), (5.0, 5.0, 5.0)])
    positions = torch.tensor([0.0, 0.5, 1.0])

    def evaluated(*_: Any, **__: Any) -> PathEvaluation:
        return PathEvaluation(positions, torch.tensor(next(losses)))

    monkeypatch.setattr("sinkhorn_rebasin.training.barrier_monitor.evaluate_path", evaluated)
    monitor, recorder = BarrierMonitor(loader(), points=3, keep=keep), Recorder()
    fit = trainer(tmp_path, max_epochs=3, callbacks=[monitor, recorder])
    rebasin = built()[2]
    fit.fit(RebasinModule(rebasin, MidpointLoss(F.cross_entropy), lr=1.0), loader())
    if keep == "barrier":  # the first has none either, and the first of equal ones stays
        step = 0
    expected = {0: recorder.scores[0], 5: recorder.scores[5], 10: recorder.scores[10]}[step]
    for name, scores in expected.items():
        assert torch.equal(monitor.best_parameters[f"scores.{name}"], scores)


def test_another_figure_is_refused() -> None:
    with pytest.raises(RebasinError, match="mean, midpoint, barrier"):
        BarrierMonitor(loader(), keep="lowest")  # type: ignore[arg-type]
