"""The experiments' commands run, and leave what they say they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments import find_permutation, linear_mode_connectivity
from experiments.data import load_mnist
from experiments.models import build_model
from experiments.receipts import read_receipt
from sinkhorn_rebasin.errors import DataError

DATA = Path("../shared/data")


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_linear_mode_connectivity_leaves_table_pictures_networks_and_receipt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--pairs", "1", "--epochs", "8", "--steps", "60", "--threads", "1", "--out", str(tmp_path)]
    linear_mode_connectivity.main([*options, "--widths", "16"])
    assert "weight matching" in capsys.readouterr().out
    receipt = read_receipt(tmp_path)
    rows = {row["method"]: row for row in receipt["metrics"]["rows"]}
    assert list(rows) == ["naive", "weight matching", "ours"]
    assert all(row["relative_change"] < 1e-5 for row in rows.values())
    assert rows["ours"]["test_barrier"] < rows["naive"]["test_barrier"]
    assert (tmp_path / "barriers.png").stat().st_size > 5000
    assert len(list(tmp_path.glob("paths-*.png"))) == 1
    network = build_model("mlp", inputs=64, widths=[16] * 3)
    for file in (tmp_path / "networks").glob("*.safetensors"):
        network.load_state_dict(load_file(file))
    assert len(list((tmp_path / "networks").glob("*.safetensors"))) == 6


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


@pytest.mark.slow
def test_the_barrier_on_mnist_is_well_below_that_of_weight_matching(tmp_path: Path) -> None:
    try:
        load_mnist(DATA)
    except DataError as error:
        pytest.skip(f"no MNIST: {error}")
    options = ["--data", "mnist", "--root", str(DATA), "--pairs", "1", "--widths", "32", "--steps", "1000"]
    linear_mode_connectivity.main([*options, "--threads", "1", "--out", str(tmp_path)])
    rows = {row["method"]: row["test_barrier"] for row in read_receipt(tmp_path)["metrics"]["rows"]}
    assert rows["ours"] < 0.4 * rows["weight matching"] < 0.4 * rows["naive"]
