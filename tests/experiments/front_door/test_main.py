"""The front door is measured as a newcomer enters it, and rows of a comparison stand beside."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from experiments.compare_methods import __main__ as comparison
from experiments.compare_methods.setting import load_setting
from experiments.data import load_digits
from experiments.front_door import __main__ as command
from experiments.models.endpoints import load_or_train
from experiments.reporting.receipts import read_receipt

TINY = """
title: digits, MLP 1x16
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 8}
seeds: [[0, 1]]
recipe: {steps: 20, cycles: 1, closing_steps: 10, evaluate_every: 10, validation_samples: 150}
evaluation: {points: 5, test_images: 200, train_images: 200, repair_images: 200}
"""


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    short = functools.partial(sr.Recipe, steps=20, cycles=1, closing_steps=10, evaluate_every=10)
    monkeypatch.setattr(command, "Recipe", short)
    return str(tmp_path / "tiny.yaml")


def run(tmp_path: Path, *options: str) -> dict[str, Any]:
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command.main([*options, *places])
    return read_receipt(tmp_path / "out")


def test_a_pair_is_measured_on_test_images_and_only_once(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = run(tmp_path, tiny, "--seconds", "9", "--processor-time")["metrics"]["all"]
    assert row["call"] == "align(A, B, train, recipe=Recipe(seconds=9))"
    assert row["clock"] == "processor"
    assert "of 1437 training samples" in row["held out"]
    setting, data = load_setting(tiny), load_digits()
    networks = [load_or_train(tmp_path / "cache", setting.endpoint(seed), data) for seed in (1, 0)]
    images = [(data.test_images[:200], data.test_labels[:200])]
    path = sr.evaluate_path(tuple(networks), images, F.cross_entropy, points=5)  # type: ignore[arg-type]
    assert row["before"] == pytest.approx(path.barrier, rel=1e-5)
    assert row["barrier"] < row["before"]
    assert row["paths"]["after"]["losses"][0] == pytest.approx(float(path.losses[0]), rel=1e-4)
    monkeypatch.setattr(command, "aligned", None)
    receipt = run(tmp_path, tiny, "--seconds", "9")
    assert receipt["metrics"]["all"] == [row]
    assert receipt["metrics"]["rows"][0]["aligned"] == f"{row['barrier']:.3f}"
    assert (tmp_path / "out" / "front_door.png").stat().st_size > 5000


def test_rows_of_a_comparison_stand_beside(tmp_path: Path, tiny: str) -> None:
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "compared")]
    comparison.main([tiny, "--methods", "naive", "ours", "ours, every symmetry", *places])
    receipt = run(tmp_path, tiny, "--show", "--compared", str(tmp_path / "compared"))
    plain, full = receipt["metrics"]["all"][::-1]
    naive, ours, every = (
        row["test_barrier"] for row in read_receipt(tmp_path / "compared" / "tiny")["metrics"]["rows"]
    )
    assert (plain["before"], plain["barrier"], full["before"], full["barrier"]) == (naive, ours, naive, every)
    assert full["call"].startswith("align(A, B, train, validation, recipe=Recipe(steps=20, cycles=1")
    assert "validation, symmetry='permutation', recipe" in plain["call"]
    assert receipt["metrics"]["rows"][0]["published"] == "–"
