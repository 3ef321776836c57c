from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.reporting.receipts import markdown_table, read_receipt, write_receipt
from sinkhorn_rebasin.errors import DataError


def _write(folder: Path, **metrics: object) -> dict:
    return read_receipt(
        write_receipt(folder, experiment="demo", config={"b": 1, "a": 2}, metrics=metrics, seeds=[3])
    )


def test_values_keep_every_digit_and_become_plain(tmp_path: Path) -> None:
    third = torch.tensor(1 / 3, dtype=torch.float64)
    metrics = _write(tmp_path, tensor=third, number=np.float32(0.5), curve=torch.arange(3), nan=float("nan"))[
        "metrics"
    ]
    assert metrics == {"tensor": 1 / 3, "number": 0.5, "curve": [0, 1, 2], "nan": "nan"}


def test_order_is_sorted_outside_metrics_and_kept_inside(tmp_path: Path) -> None:
    receipt = _write(tmp_path, rows=[{"method": "ours", "barrier": 0.1}])
    assert list(receipt["config"]) == ["a", "b"]
    assert list(receipt["metrics"]["rows"][0]) == ["method", "barrier"]
    assert receipt["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert receipt["machine"]["threads"] == torch.get_num_threads()


def test_no_machine_paths_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    inside, beside = Path.cwd() / "results", tmp_path / "shared" / "data"
    monkeypatch.setattr(
        sys, "argv", ["x", f"--root={beside}", "--out", str(inside), "/far/away/place", "a/b"]
    )
    path = write_receipt(
        inside,
        experiment="demo",
        config={"root": beside},
        metrics={"error": f"in {inside}/f.py, line 3"},
        seeds=[],
    )
    receipt = read_receipt(path)
    assert receipt["command"].endswith("--root=../shared/data --out results place a/b")
    assert receipt["config"] == {"root": "../shared/data"}
    assert receipt["metrics"] == {"error": "in results/f.py, line 3"}
    assert str(tmp_path) not in path.read_text()


def test_two_receipts_of_the_same_run_are_identical(tmp_path: Path) -> None:
    _write(tmp_path / "a", x=1.0)
    _write(tmp_path / "b", x=1.0)
    assert (tmp_path / "a/receipt.json").read_bytes() == (tmp_path / "b/receipt.json").read_bytes()
    json.loads((tmp_path / "a/receipt.json").read_text(), parse_constant=pytest.fail)


def test_missing_receipt_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"receipt\.json but got no such file"):
        read_receipt(tmp_path)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (12345.6, "12,350"),
        (3, "3"),
        (9e6, "9,000,000"),
        (None, ""),
        (True, "yes"),
    ],
)
def test_cells(value: object, cell: str) -> None:
    assert markdown_table([{"v": value}]).splitlines()[2] == f"| {cell} |"


def test_columns_choose_and_order() -> None:
    table = markdown_table([{"a": 1, "b": "x|y"}, {"c": 2}], columns=["b", "a"])
    assert table.splitlines() == ["| b | a |", "|---|---|", "| x\\|y | 1 |", "|  |  |"]
