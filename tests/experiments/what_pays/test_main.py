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


def test_a_package_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(setting: Any) -> Any:
        raise ImportError("No module named 'torchani'.")

    monkeypatch.setattr(command, "published_problem", missing)
    main(["ani_1x", "--out", str(tmp_path)])
    (skipped,) = read_receipt(tmp_path)["metrics"]["skipped"]
    assert "torchani" in skipped["skipped"]
    assert skipped["setting"].startswith("ANI-1x")
