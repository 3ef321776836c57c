"""The scale of the default is found in a trial, and the start is kept where nothing is better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin import training
from sinkhorn_rebasin.front.schedules import schedules, trial_steps
from tests.front.pairs import SHORT, short

TRIED = replace(SHORT, trials=3, steps=60)


def test_every_schedule_is_tried_from_the_start_and_the_best_is_named() -> None:
    result = short(recipe=TRIED)
    trials = [entry for entry in result.history if entry["stage"] == "trial"]
    assert result.steps["trial"] == 3 * trial_steps(TRIED, TRIED.steps) == 9
    starts = [entry["midpoint_loss"] for entry in trials[::2]]
    assert len(starts) == 3
    assert starts == [starts[0]] * 3
    (note,) = [note for note in result.notes if "trials" in note]
    assert any(str(schedule) in note for schedule in schedules(TRIED))


def test_the_schedule_whose_trial_ends_lowest_is_trained() -> None:
    recipe = replace(
        SHORT, trials=3, steps=200, cycles=1, keep="midpoint", learning_rate=1.0, temperatures=(3.0, 1.0)
    )
    result = short(recipe=recipe)
    ends = [entry["midpoint_loss"] for entry in result.history if entry["stage"] == "trial"][1::2]
    assert len(set(ends)) > 1
    best = schedules(recipe)[ends.index(min(ends))]
    assert any(str(best) in note for note in result.notes)


def test_the_start_is_kept_and_that_is_said() -> None:
    def harmful(rebasin: Any, batch: Any) -> torch.Tensor:
        return -sr.MidpointLoss()(rebasin, batch)

    result = short(recipe=replace(SHORT, closing_steps=0), loss=harmful)
    start = result.starts[result.start]
    assert isinstance(start, sr.PathEvaluation)
    assert result.after is not None
    assert result.after.losses.mean() <= start.losses.mean() + 1e-6
    assert any("so it is kept" in note for note in result.notes)


def test_a_start_that_was_improved_is_not_said_to_be_kept() -> None:
    result = short()
    start = result.starts[result.start]
    assert isinstance(start, sr.PathEvaluation)
    assert result.after is not None
    assert result.after.losses.mean() < start.losses.mean() - 1e-3
    assert not any("kept" in note for note in result.notes)


def test_monitors_of_a_call_keep_what_its_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    class Watched(training.BarrierMonitor):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            kept.append(self.keep)

    monkeypatch.setattr(training, "BarrierMonitor", Watched)
    short(recipe=replace(SHORT, keep="midpoint"))
    assert kept == ["midpoint"] * 2


def test_one_trial_is_none() -> None:
    result = short(recipe=replace(SHORT, trials=1))
    assert "trial" not in result.steps
    assert not any("trial" in note for note in result.notes)


@pytest.mark.parametrize("keep", ["mean", "midpoint", "barrier"])
def test_what_is_kept_is_the_lowest_of_its_kind(keep: Any) -> None:
    result = short(recipe=replace(SHORT, keep=keep, closing_steps=0, trials=1))
    assert result.after is not None
    figures = [entry["midpoint_loss" if keep == "midpoint" else "barrier"] for entry in result.history]
    if keep != "mean":
        assert result.after.figure(keep) == pytest.approx(min(figures), abs=1e-6)
