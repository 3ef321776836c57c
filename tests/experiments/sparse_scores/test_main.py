"""The measurements of sparse scores, on a small layer and on made-up results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.reporting.json_files import write_json
from experiments.reporting.receipts import read_receipt
from experiments.sparse_scores import __main__ as script
from experiments.sparse_scores import cost


def test_a_planted_layer_is_found_and_measured() -> None:
    threads = torch.get_num_threads()
    row = cost.measure(128, 8, steps=12, features=32, noise=0.2)
    torch.set_num_threads(threads)
    assert row["recovered"] == 1.0
    assert row["least ratio"] <= row["ratio"] <= row["largest ratio"]
    # scores, gradient and two moments in single precision; candidates and potentials besides
    assert row["score state (MB)"] == pytest.approx(128 * (8 * (4 * 4 + 8) + 4) / 1e6, rel=0.01)


def test_the_table_gathers_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    write_json(tmp_path / "cost_8_2.json", {"command": "first", "rows": [{"ratio": 7.5}]})
    write_json(tmp_path / "quality_8_2.json", {"command": "second", "rows": [{"test barrier": 0.25}]})
    script.gather()
    receipt = read_receipt(tmp_path)
    assert receipt["metrics"] == {"cost": [{"ratio": 7.5}], "quality": [{"test barrier": 0.25}]}
    assert receipt["commands"] == ["first", "second"]
    assert "| 7.5 |" in capsys.readouterr().out
