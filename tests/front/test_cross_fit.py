"""Alignments of few samples: all of them decide, all of them train."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.front import cross_fit
from sinkhorn_rebasin.front.fit import Fits
from sinkhorn_rebasin.front.preparation import prepared, seeded
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.rebasin.candidates import learned_tensors
from sinkhorn_rebasin.training import BarrierMonitor
from tests.front.pairs import CPU, batches, loader, samples, short, trained

RECIPE = sr.Recipe(steps=60, cycles=1, trials=1, closing_steps=0, evaluate_every=15, points=3)
BRIEF = replace(RECIPE, steps=6, evaluate_every=3)


@functools.cache
def few() -> sr.AlignmentResult:
    """An alignment on sixty samples."""
    return short(train=batches(20, 60), recipe=RECIPE)


def test_the_fits_of_folds_stop_the_last_one() -> None:
    result = few()
    assert result.held_out == "each of 5 folds of 60 training samples"
    assert result.steps["soft"] in (15, 30, 45, 60)
    assert [entry["step"] for entry in result.history if entry["stage"] == "soft"][:4] == [0, 15, 30, 45]
    assert any(f"soft after {result.steps['soft']}" in note for note in result.notes)


def test_samples_that_were_never_seen_gain_too() -> None:
    result, (points, labels) = few(), samples()
    unseen = list(zip(points[60:].split(170), labels[60:].split(170), strict=True))
    before, after = (
        sr.evaluate_path(
            sr.LinearPath(trained(0), target.state_dict(), trained(0).state_dict()), unseen, points=3
        )
        for target in (trained(1), result.to_model())
    )
    assert after.midpoint_loss < before.midpoint_loss
    # What the folds say of samples that were kept out is about what it is on others.
    assert abs(result.after.midpoint_loss - after.midpoint_loss) < 0.5 * before.midpoint_loss


def test_a_start_that_is_kept_is_judged_on_all_samples() -> None:
    data = batches(20, 60)
    recipe = sr.Recipe(
        steps=10,
        cycles=1,
        trials=1,
        closing_steps=0,
        evaluate_every=10,
        points=3,
        starts=("weight_matching",),
    )
    result = short(trained(0), copy.deepcopy(trained(0)), train=data, recipe=recipe)
    assert any("may be chance, so the start is kept" in note for note in result.notes)
    path = sr.LinearPath(trained(0), result.to_model().state_dict(), trained(0).state_dict())
    torch.testing.assert_close(result.after.losses, sr.evaluate_path(path, data, points=3).losses)


def test_sums_of_losses_are_those_of_all_samples() -> None:
    # The same network twice, so that the start is kept, which is judged fold by fold.
    summed, mean = (
        short(
            trained(0),
            copy.deepcopy(trained(0)),
            train=batches(20, 60),
            recipe=BRIEF,
            criterion=nn.CrossEntropyLoss(reduction=reduction),
        )
        for reduction in ("sum", "mean")
    )
    for before, after in ((summed.before, mean.before), (summed.after, mean.after)):
        torch.testing.assert_close(before.losses, 60 * after.losses)
        torch.testing.assert_close(before.accuracies, after.accuracies)


def test_no_fold_is_judged_on_what_it_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[float], set[float], set[float]]] = []

    class Watched(Fits):
        def run(self, began: float) -> None:
            parts = self.train, self.judge.validation, self.judge.statistics
            seen.append(tuple({float(x[0]) for inputs, _ in part for x in inputs} for part in parts))
            super().run(began)

    monkeypatch.setattr(cross_fit, "Fits", Watched)
    short(train=batches(20, 60), recipe=BRIEF)
    everything = {float(x[0]) for x in samples(60)[0]}
    assert len(seen) == 5
    for learned_from, judged_on, measured_on in seen:
        assert learned_from == measured_on == everything - judged_on
    assert set().union(*(judged_on for _, judged_on, _ in seen)) == everything


def test_a_fit_stops_where_it_is_told_though_held_out_data_say_otherwise() -> None:
    points, labels = samples(400)
    wrong = [(points[:40], 3 - labels[:40])]  # on which the start is best
    pair = {"criterion": None, "loss": None, "batch": None, "spec": None, "untied": False, "expanded": False}
    options: dict[str, Any] = {
        **pair,
        "example_inputs": points[:2],
        "rescale": False,
        "symmetry": "permutation",
    }
    options |= {"repair": False, "recipe": RECIPE, "seed": 0, "statistics": None, "trainer": CPU}
    found = prepared(trained(0), trained(1), batches(20, 60), wrong, **options)
    start = Alignment(identity_permutations(found.spec), found.spec)
    learned: dict[int, dict[str, Tensor]] = {}

    def run(**limits: Any) -> Fits:
        rebasin = found.rebasin_at(start, 0)
        fits = Fits(rebasin, found.judge, found.train, RECIPE, CPU, False, None, **limits)
        with seeded(0):
            fits.run(0.0)
        return fits

    class Remembers(BarrierMonitor):
        def _remember(self, step: int, evaluation: Any, height: float, rebasin: Any) -> None:
            super()._remember(step, evaluation, height, rebasin)
            learned[step] = {name: tensor.clone() for name, tensor in learned_tensors(rebasin).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sinkhorn_rebasin.training.BarrierMonitor", Remembers)
        whole = run()
    assert len(learned) > 2
    step = sorted(learned)[1]
    stopped = run(stops={"soft": step})
    assert (stopped.steps, whole.steps) == ({"soft": step}, {"soft": 60})
    for name, tensor in learned_tensors(stopped.rebasin).items():
        assert torch.equal(tensor, learned[step][name])


def test_one_part_is_kept_out_where_folds_are_not_wanted_or_time_is_short() -> None:
    for changes in ({"folds": 1}, {"seconds": 60.0}):
        recipe = sr.Recipe(
            steps=4, cycles=1, trials=1, closing_steps=0, evaluate_every=2, points=3, **changes
        )
        assert short(train=loader_of_few(), recipe=recipe).held_out.startswith("30 of 60 training samples")


def loader_of_few() -> Any:
    """The first sixty samples in a DataLoader."""
    given = loader()
    return torch.utils.data.DataLoader(torch.utils.data.Subset(given.dataset, range(60)), 20, shuffle=True)


@pytest.mark.parametrize("trials", [1, 2], ids=["fit", "trial"])
def test_an_interrupted_fold_leaves_the_start(trials: int) -> None:
    class InterruptsOnce(lightning.Callback):
        done = False

        def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.global_step == 2 and not self.done:
                self.done = True
                raise KeyboardInterrupt

    options = {**CPU, "callbacks": [InterruptsOnce()]}
    result = short(train=batches(20, 60), recipe=replace(RECIPE, trials=trials), trainer=options)
    assert result.interrupted
    assert result.steps == {}
    assert result.after.midpoint_loss == result.starts[result.start].midpoint_loss


def test_the_trials_of_all_folds_choose_the_schedule() -> None:
    recipe = sr.Recipe(steps=20, cycles=1, trials=2, closing_steps=6, evaluate_every=10, points=3)
    result = short(train=batches(20, 60), recipe=recipe)
    assert sum("short trials" in note for note in result.notes) == 1
    assert "closing after" in result.notes[-1]


def test_a_loss_of_ones_own_is_judged_fold_by_fold() -> None:
    def loss(rebasin: sr.SinkhornRebasin, batch: Any) -> torch.Tensor:
        (inputs,) = batch
        return (rebasin(inputs, 0.5) - rebasin(inputs, 1.0)).square().mean()

    result = short(train=[(samples(60)[0],)], recipe=BRIEF, loss=loss)
    assert result.after is None
    assert result.held_out == "each of 5 folds of 60 training samples"
    assert isinstance(result.starts[result.start], float)


def test_repair_is_done_on_what_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    result = short(train=batches(20, 60), recipe=BRIEF, repair=True)
    assert result.repaired
    assert sum(len(inputs) for inputs, _ in result.statistics) == 60
