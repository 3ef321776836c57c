"""The command runs, and leaves what it says it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.find_permutation import __main__ as command
from experiments.reporting.receipts import read_receipt


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_find_permutation_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--problems", "tanh MLP 4x10", "--seeds", "3", "--out", str(tmp_path)])
    assert "3 of 3" in capsys.readouterr().out
    (entry,) = read_receipt(tmp_path)["metrics"]["table"]
    assert entry["recovered"] == 3
    assert (tmp_path / "planted.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["MLP 784-512x3-10", "VGG11-BN", "ResNet18"])
def test_large_planted_permutations_are_found(problem: str, tmp_path: Path) -> None:
    command.main(["--problems", problem, "--seeds", "2", "--out", str(tmp_path)])
    (entry,) = read_receipt(tmp_path)["metrics"]["table"]
    assert entry["recovered"] == 2
