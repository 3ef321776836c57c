"""The command runs, and leaves what it says it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.recurrent_signs import __main__ as command
from experiments.recurrent_signs.table_and_figure import METHODS
from experiments.reporting.receipts import read_receipt


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_text_networks_are_merged_without_and_with_signs(tmp_path: Path) -> None:
    small = [
        "--pairs",
        "1",
        "--width",
        "6",
        "--context",
        "8",
        "--windows",
        "16",
        "--steps",
        "2",
        "--train",
        "400",
    ]
    folders = ["--models", str(tmp_path / "models"), "--out", str(tmp_path)]
    command.main([*small, *folders])
    (line,) = read_receipt(tmp_path)["metrics"]["rows"]
    assert line["chosen with signs"] in [line[f"{method}, signs"] for method in METHODS]
    assert (tmp_path / "recurrent_signs.png").is_file()
