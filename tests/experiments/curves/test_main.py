from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.compare_methods.setting import Training
from experiments.curves import training
from experiments.curves.__main__ import QUESTION
from experiments.curves.setting import Setting, Way
from experiments.curves.study import Study
from experiments.curves.training import bend, connected, preparation, short, softened, trained
from experiments.reporting.finished import Finished
from sinkhorn_rebasin import PathEvaluation
from sinkhorn_rebasin.connectivity import LearnedCurve
from sinkhorn_rebasin.training import CosineAnnealing, CurveModule
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 10, learning_rate: 0.01}
held_out: 50
seeds: [[0, 1]]
budgets: [0, 5, 20]
points: 5
ways: [{rate: 0.1}, {rate: 0.0001}]
pilot: 5
alternation_steps: 5
match_images: 200
norm_images: 100
recipe: {steps: 10, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 5, points: 3}
"""
SETTING = Setting(
    title="tiny", data="digits", model="mlp", arguments={"inputs": 64, "widths": [8]}, training=Training(1)
)


def test_curves_begin_as_segments_and_are_trained_until_they_are_connected(tmp_path: Path) -> None:
    (pair,) = answered(QUESTION, TINY, tmp_path)["pairs"]
    assert list(pair["curves"]) == ["aligned", "as they are", "in turn"]
    raw, aligned = pair["curves"]["as they are"], pair["curves"]["aligned"]
    assert aligned[0]["barrier"] < raw[0]["barrier"]
    assert raw[-1]["barrier"] < raw[0]["barrier"]
    assert [checkpoint["step"] for checkpoint in raw] == [0, 5, 20][: len(raw)]
    assert len(raw) == 3 or raw[-1]["barrier"] <= 0
    in_turn = pair["curves"]["in turn"]
    assert in_turn[0]["step"] == 5
    assert in_turn[0]["losses"][0] == pytest.approx(raw[0]["losses"][0])
    assert pair["ways"]["as they are"]["taken"] == "rate 0.1, annealed"


def test_a_curve_is_connected_by_its_accuracy_and_its_loss() -> None:
    positions, low = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.9, 1.0])
    good = torch.tensor([0.9, 0.899, 0.95])
    assert connected(PathEvaluation(positions, low, good), 0.003)
    assert not connected(PathEvaluation(positions, low, good - torch.tensor([0.0, 0.1, 0.0])), 0.003)
    assert not connected(PathEvaluation(positions, 2 - low, good), 0.003)
    assert abs(short(PathEvaluation(positions, low, good)) - 0.001) < 1e-6


def study_of(folder: Path, **options: Any) -> Study:
    """Return what a curve between two fresh networks is measured by."""
    setting = Setting(**{**vars(SETTING), "held_out": 100, "points": 3, "norm_images": 50, **options})
    data = setting.load(folder)
    return Study(LearnedCurve(setting.fresh(), setting.fresh()), *data, setting, 0, 7, Finished(folder))


def test_the_way_with_the_least_held_out_loss_is_taken_whatever_its_place(tmp_path: Path) -> None:
    for number, ways in enumerate(((Way(0.1), Way(1e-5)), (Way(1e-5), Way(0.1)))):
        way, tried = study_of(tmp_path / f"{number}", ways=ways, pilot=10).chosen_way()
        assert way == Way(0.1)
        assert min(tried, key=lambda each: each["held-out loss"])["way"] == str(way)
    assert study_of(tmp_path, ways=(Way(0.3),)).chosen_way() == (Way(0.3), [])


def test_what_is_finished_of_a_curve_is_kept_and_it_ends_where_enough_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, budgets=(0, 2, 4, 6), tolerance=-1.0)
    found = list(study.budgets(Way(0.1), enough=9))
    assert [each["step"] for each in found] == [7, 9]
    monkeypatch.setattr("experiments.curves.study.trained", None)
    assert list(study.budgets(Way(0.1), enough=9)) == found
    with pytest.raises(TypeError):
        list(study.budgets(Way(0.2), enough=9))


def test_every_budget_starts_from_the_curve_as_it_was() -> None:
    data, _, _ = SETTING.load(Path())
    curve = LearnedCurve(SETTING.fresh(), SETTING.fresh())
    before = [parameter.detach().clone() for parameter in curve.bends.parameters()]
    first, again = (trained(curve, data, SETTING, Way(0.1), 3, 0) for _ in range(2))
    assert all(map(torch.equal, before, curve.bends.parameters()))
    assert all(map(torch.equal, first.bends.parameters(), again.bends.parameters()))
    assert not torch.equal(before[0], next(first.bends.parameters()))
    adam = trained(curve, data, SETTING, Way(0.001, annealed=False, optimizer="adam"), 1, 0)
    moved = next(adam.bends.parameters()).detach() - before[0]
    assert moved.abs().max().item() == pytest.approx(
        0.001, rel=1e-3
    )  # Adam's first step has the rate's length


def test_the_rate_of_a_bend_falls_and_its_images_are_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, _ = SETTING.load(Path())
    rates: dict[bool, list[float]] = {}
    for annealed in (True, False):
        module = CurveModule(LearnedCurve(SETTING.fresh(), SETTING.fresh()), lr=0.5)
        optimizer = module.configure_optimizers()
        seen = rates.setdefault(annealed, [])
        optimizer.register_step_pre_hook(
            lambda given, *_, seen=seen: seen.append(given.param_groups[0]["lr"])
        )
        annealing = CosineAnnealing(6) if annealed else None
        bend(module, optimizer, data, 6, 10, torch.Generator().manual_seed(0), annealing=annealing)
    assert rates[False] == [0.5] * 6
    assert rates[True] == pytest.approx([0.5 * CosineAnnealing(6).factor(step) for step in range(6)])
    shapes: list[torch.Size] = []
    monkeypatch.setattr(
        "experiments.curves.training.augmented", lambda images: shapes.append(images.shape) or images
    )
    trained(LearnedCurve(SETTING.fresh(), SETTING.fresh()), data, SETTING, Way(augmented=True), 2, 0)
    trained(LearnedCurve(SETTING.fresh(), SETTING.fresh()), data, SETTING, Way(), 2, 0)
    assert len(shapes) == 2


def test_mirrored_images_stay_in_their_places() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 3, 6, 6)
    seen = preparation(Way(mirrored=True))(images)
    kept, flipped = ((seen - each).abs().flatten(1).amax(1) == 0 for each in (images, images.flip(-1)))
    assert torch.equal(kept, ~flipped)
    assert kept.any()
    assert flipped.any()
    shifted = preparation(Way(augmented=True, mirrored=True))(images)
    assert (shifted != images).flatten(1).any(1).sum() > 24  # one of 162 stays as it is


def test_what_is_distilled_alone_heeds_the_ends_and_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(**{**vars(SETTING), "held_out": 100})
    data, _, _ = setting.load(tmp_path)
    wrong = replace(data, train_labels=(data.train_labels + 1) % 10)
    curve = LearnedCurve(setting.fresh(), setting.fresh())
    for share, same in ((1.0, True), (0.5, False)):
        way = Way(0.1, distilled=share)
        bends = [
            list(trained(curve, each, setting, way, 5, seed=0).bends.parameters()) for each in (data, wrong)
        ]
        assert all(torch.equal(*pair) for pair in zip(*bends, strict=True)) is same
    images = data.train_images[:9]
    wanted = torch.stack([end(images).softmax(1) for end in (curve.start.eval(), curve.end.eval())]).mean(0)
    _, soft = softened((images, data.train_labels[:9]), [curve.start, curve.end], 1.0)
    torch.testing.assert_close(soft, wanted)
    told: list[list[torch.nn.Module]] = []
    monkeypatch.setattr(training, "softened", lambda batch, networks, share: told.append(networks) or batch)
    trained(curve, data, setting, Way(0.1, distilled=0.5), 1, seed=0)
    for found, end in zip(told[0], (curve.start, curve.end), strict=True):
        assert not found.training
        assert all(map(torch.equal, found.state_dict().values(), end.state_dict().values()))
