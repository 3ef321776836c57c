"""The command runs, goes on where it was, and leaves what it says it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import read_receipt
from experiments.what_pays import __main__ as command
from experiments.what_pays.__main__ import main
from experiments.what_pays.finished import file_of, finished_cells, restore, write_cell
from experiments.what_pays.setting import load_setting
from sinkhorn_rebasin.errors import DataError

TINY = """
title: digits, tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [8]}
training: {epochs: 1}
share: 0.9
groups: 1
held_out: 60
sizes: [40]
spending: {steps: 4, rates: [0.01], learning_rates: [0.1], evaluate_every: 2}
"""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_way_of_every_budget_is_measured_once(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    options = [str(file), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "nets")]
    main([*options, "--sizes", "0"])
    assert [line["budget"] for line in read_receipt(tmp_path / "out")["metrics"]["rows"]] == ["no data"]
    main(options)
    metrics = read_receipt(tmp_path / "out")["metrics"]
    assert [line["budget"] for line in metrics["rows"]] == ["no data", "40 unlabelled", "40 labelled"]
    rows = {(row["way"], row["budget"]): row for cell in metrics["cells"] for row in cell["rows"]}
    ways = {way for way, _ in rows}
    assert {"best member", "mean of outputs", "plain mean", "weight matching", "activation matching"} <= ways
    assert {"learned", "distilled into a member", "fine-tuned from the learned midpoint"} <= ways
    assert rows["mean of outputs", "no data"]["cost"] == 2
    assert rows["distilled into a member", "40 unlabelled"]["steps"] == 4
    assert rows["distilled into the learned midpoint", "40 unlabelled"]["steps"] == 8
    assert (tmp_path / "out" / "what_pays.png").is_file()
    finished = next((tmp_path / "out" / "finished").glob("*40_unlabelled*"))
    write_json(finished, {**read_json(finished), "figure": "kept"})
    main(options)
    assert read_json(finished)["figure"] == "kept"


def test_groups_are_measured_from_the_first_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(command, "problems_of", lambda *_: seen.append)
    monkeypatch.setattr(command, "cells_of", lambda make, budgets: make() or [])
    for options in (["--first-group", "1"], ["--groups", "1"]):
        main(["digits", *options, "--out", str(tmp_path)])
    assert seen == [*range(1, load_setting("digits").groups), 0]


def test_a_package_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(setting: Any) -> Any:
        raise ImportError("No module named 'torchani'.")

    monkeypatch.setattr(command, "published_problem", missing)
    main(["ani_1x", "--out", str(tmp_path)])
    (skipped,) = read_receipt(tmp_path)["metrics"]["skipped"]
    assert "torchani" in skipped["skipped"]
    assert skipped["setting"].startswith("ANI-1x")


def test_a_receipt_brings_its_cells_back_as_they_were(tmp_path: Path) -> None:
    setting = load_setting("digits")
    rows = [
        {"way": "best member", "budget": "no data", "cost": 1, "error": 0.3, "accuracy": 0.123456789012345},
        {"way": "mean of outputs", "budget": "no data", "cost": 2, "error": 0.2, "accuracy": 0.9},
    ]
    first, again = tmp_path / "first", tmp_path / "again"
    file = file_of(first, "digits", setting, 1, "no data")
    write_cell(file, "digits", setting, 1, rows, "test loss")
    main(["--tables", "--out", str(first)])
    assert restore(first, again) == 1
    assert read_json(again / "finished" / file.name) == read_json(file)
    main(["digits", "--tables", "--out", str(again)])
    before, after = read_receipt(first), read_receipt(again)
    for name in ("metrics", "config", "seeds", "commands"):
        assert after[name] == before[name]
    assert restore(first, again) == 0


def test_the_receipt_in_the_repository_names_the_cells_that_a_run_looks_for(tmp_path: Path) -> None:
    restore(Path("experiments/results/what_pays"), tmp_path)
    found, _ = finished_cells(tmp_path)
    assert len(found) == len(read_receipt(Path("experiments/results/what_pays"))["metrics"]["cells"])
    for cell in found:
        budget = cell["rows"][0]["budget"]
        file = file_of(tmp_path, cell["name"], load_setting(cell["name"]), cell["group"], budget)
        assert read_json(file)["rows"] == cell["rows"]


def test_a_receipt_of_another_experiment_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "receipt.json", {"experiment": "speed"})
    with pytest.raises(DataError, match="receipt of what_pays but got one of speed"):
        restore(tmp_path, tmp_path / "out")
