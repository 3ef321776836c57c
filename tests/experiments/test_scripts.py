"""The experiments' commands run, and leave what they say they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import find_permutation, recurrent_signs
from experiments.receipts import read_receipt


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_find_permutation_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    find_permutation.main(["--problems", "tanh MLP 4x10", "--seeds", "3", "--out", str(tmp_path)])
    assert "3 of 3" in capsys.readouterr().out
    (entry,) = read_receipt(tmp_path)["metrics"]["table"]
    assert entry["recovered"] == 3
    assert (tmp_path / "planted.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["MLP 784-512x3-10", "VGG11-BN", "ResNet18"])
def test_large_planted_permutations_are_found(problem: str, tmp_path: Path) -> None:
    find_permutation.main(["--problems", problem, "--seeds", "2", "--out", str(tmp_path)])
    (entry,) = read_receipt(tmp_path)["metrics"]["table"]
    assert entry["recovered"] == 2


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
    recurrent_signs.main([*small, *folders])
    (line,) = read_receipt(tmp_path)["metrics"]["rows"]
    assert line["chosen with signs"] in [line[f"{method}, signs"] for method in recurrent_signs.METHODS]
    assert (tmp_path / "recurrent_signs.png").is_file()
