"""The command runs, and leaves what it says it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from experiments.merge_families.__main__ import main
from experiments.reporting.receipts import read_receipt


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_recurrent_networks_and_mixtures_are_merged(tmp_path: Path) -> None:
    small = ["--width", "16", "--context", "8", "--windows", "16", "--aligned", "64", "--steps", "2"]
    main([*small, "--train", "256", "--models", str(tmp_path / "models"), "--out", str(tmp_path)])
    rows = read_receipt(tmp_path)["metrics"]["rows"]
    of = {
        family: [each["method"] for each in rows if each["family"] == family]
        for family in ("LSTM", "mixture of experts")
    }
    assert of["LSTM"] == ["as they are", "weight matching", "ours"]
    assert {"experts alone, by gates", "experts alone, by Gram matrices", "ours"} < set(
        of["mixture of experts"]
    )
    assert (tmp_path / "merge_families.png").is_file()
