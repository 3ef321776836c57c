"""The command runs, and leaves what it says it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from experiments.owners.__main__ import main
from experiments.owners.clients import dirichlet_split
from experiments.owners.rounds import WAYS
from experiments.reporting.receipts import read_receipt


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_owners_have_all_samples_and_classes_of_their_own() -> None:
    labels = torch.arange(5000) % 10
    split = dirichlet_split(labels, 4, 0.1, seed=1)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(5000))
    counts = torch.stack([torch.bincount(labels[places], minlength=10) for places in split])
    assert float((counts.max(0).values / 500).mean()) > 0.6
    even = torch.stack(
        [torch.bincount(labels[p], minlength=10) for p in dirichlet_split(labels, 4, 1000.0, seed=1)]
    )
    assert float((even.max(0).values / 500).mean()) < 0.3


def test_one_round_and_several_are_finished_once(tmp_path: Path) -> None:
    small = ["--digits", "--seeds", "1", "--clients", "3", "--epochs", "1", "--out", str(tmp_path)]
    main(["one-round", *small, "--width", "8", "--server", "60", "--scale-steps", "4"])
    found = read_receipt(tmp_path)["metrics"]["rows"]
    methods = [each["method"] for each in found]
    assert {"plain average", "PFNM, tuned", "ours, data-free", "ours, learned", "ensemble"} <= set(methods)
    assert next(e for e in found if e["method"] == "ours, data-free")["data of the server"] == "–"
    before = (tmp_path / "finished").stat().st_mtime_ns
    main(["rounds", *small, "--rounds", "2"])
    metrics = read_receipt(tmp_path)["metrics"]
    assert [each["method"] for each in metrics["rounds"]] == list(WAYS)
    assert metrics["rows"] == found
    assert (tmp_path / "owners.png").is_file()
    assert (tmp_path / "finished").stat().st_mtime_ns > before
