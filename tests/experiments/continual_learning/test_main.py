"""The command teaches tasks, keeps its runs, and goes on where it was stopped."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch

from experiments.continual_learning import __main__ as command
from experiments.continual_learning.benchmarks import BENCHMARKS, Sizes
from experiments.continual_learning.methods import METHODS
from experiments.continual_learning.runs import Run
from experiments.data import ImageData
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual import ExperienceReplay

SMALL = ["--epochs", "1", "--tasks", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def as_before():  # type: ignore[no-untyped-def]
    threads, level = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    logging.getLogger("lightning.pytorch").setLevel(level)


def test_it_leaves_table_pictures_runs_and_receipt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["--methods", "experience replay", "re-basin, published", "--seeds", "2"]
    command.main([*SMALL, *methods, "--out", str(tmp_path)])
    assert "experience replay" in capsys.readouterr().out
    receipt = read_receipt(tmp_path)
    rows = receipt["metrics"]["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in methods[1:3] for seed in (0, 1)
    ]
    assert rows[0]["average accuracy"] != rows[1]["average accuracy"]
    for file in ("average_accuracy.png", "matrix-experience_replay.png"):
        assert (tmp_path / file).stat().st_size > 5000
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4
    assert not list((tmp_path / "runs").glob("*.ckpt"))

    def fails(*_: object) -> None:
        raise AssertionError("A finished run was made again.")

    monkeypatch.setattr("experiments.continual_learning.runs._made", fails)
    command.main([*SMALL, *methods, "--out", str(tmp_path)])
    assert read_receipt(tmp_path)["metrics"]["rows"] == rows
    with pytest.raises(AssertionError, match="made again"):
        command.main([*SMALL, *methods, "--out", str(tmp_path), "--batch-size", "8"])
    slower = partial(ExperienceReplay, lr=0.001)
    monkeypatch.setitem(METHODS, "experience replay", slower)
    with pytest.raises(AssertionError, match="made again"):
        command.main([*SMALL, *methods, "--out", str(tmp_path)])


def test_missing_data_are_skipped_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--benchmark", "split-cifar100", "--root", str(tmp_path), "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "split-cifar100 is skipped" in said
    assert "cifar-100-python" in said
    assert not (tmp_path / "receipt.json").exists()


def test_rotated_mnist_is_all_digits_in_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.rand(12, 1, 28, 28), torch.arange(12) % 10
    data = ImageData(images, labels, images[:4], labels[:4], 10, "mnist")
    monkeypatch.setattr("experiments.continual_learning.benchmarks.load_mnist", lambda *_: data)
    benchmark = BENCHMARKS["rotated-mnist"](Path(), "task", Sizes(tasks=3), "nearest")
    assert (benchmark.classes, benchmark.epochs, len(benchmark.datamodules)) == (None, 5, 3)
    tests = [next(iter(task.test_dataloader()))[0].reshape(-1, 1, 28, 28) for task in benchmark.datamodules]
    assert torch.equal(tests[0], images[:4])
    torch.testing.assert_close(tests[1], torch.rot90(images[:4], 1, (2, 3)))
    torch.testing.assert_close(tests[2], images[:4].flip(2, 3))


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_splits_have_classes_of_their_own(scenario: str) -> None:
    benchmark = BENCHMARKS["split-digits"](Path(), scenario, Sizes(), "nearest")  # type: ignore[arg-type]
    found = [
        {int(label) for _, ls in task.train_dataloader() for label in ls} for task in benchmark.datamodules
    ]
    assert found == [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]
    assert (benchmark.classes is None) == (scenario == "class")


def test_figures_of_a_run_are_in_percent() -> None:
    run = Run("replay", 0, [[0.8, 0.1], [0.5, 0.7]], [0.0, 0.2], 3.0, False)
    figures = run.figures()
    assert figures["average accuracy"] == pytest.approx(60)
    assert figures["forgetting"] == pytest.approx(30)
    assert figures["forward transfer"] == pytest.approx(-10)
    last = Run("joint", 0, [[None, None], [0.5, 0.7]], [0.0, 0.2], 3.0, False)
    assert last.figures()["average accuracy"] == pytest.approx(60)
    assert last.figures()["forgetting"] is None


@pytest.mark.parametrize("suffix", [".json", ".config.json"])
def test_a_run_that_was_cut_short_is_named(tmp_path: Path, suffix: str) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / f"fine-tuning-seed0{suffix}").write_text('{"config": {"epo', encoding="utf-8")
    with pytest.raises(DataError, match=rf"fine-tuning-seed0{suffix}"):
        command.main([*SMALL, "--methods", "fine-tuning", "--seeds", "1", "--out", str(tmp_path)])
