"""Plain and midpoint steps both learn, of the same batch, and the receipt keeps every network's times."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from experiments.models import Architecture
from experiments.reporting.receipts import read_receipt
from experiments.step_cost import midpoint
from experiments.step_cost.turns import quartiles_of_ratios
from sinkhorn_rebasin import SinkhornRebasin

SMALL = {
    "mlp": Architecture("mlp", (1, 6), {"inputs": 6, "widths": [8]}),
    "gpt": Architecture("gpt", (1, 3), {"vocabulary": 5, "context": 3, "width": 8, "depth": 1, "heads": 2}),
}


def test_a_step_moves_the_scores_alone() -> None:
    torch.manual_seed(0)
    networks, batch = [SMALL["mlp"].build() for _ in range(2)], midpoint.batch_of(SMALL["mlp"], 4)
    rebasin = SinkhornRebasin(*networks, batch[0][:2], start="identity", noise=0.1)
    before = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
    midpoint.midpoint_step(rebasin, batch)()
    changed = {name for name, tensor in rebasin.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.startswith("scores")} == {
        f"scores.{n}" for n in dict(rebasin.scores.items())
    }
    assert not any(name.startswith(("reference", "target")) for name in changed)


def test_labels_of_a_language_model_are_the_next_tokens() -> None:
    inputs, labels = midpoint.batch_of(SMALL["gpt"], 4)
    assert torch.equal(inputs[:, 1:], labels[:, :-1])


def test_quartiles_are_of_the_ratios_of_turns() -> None:
    assert quartiles_of_ratios([3.0, 8.0, 10.0], [1.0, 2.0, 2.0]) == [3.5, 4.5]
    assert quartiles_of_ratios([3.0], [2.0]) == [1.5, 1.5]


def test_networks_measured_before_stay_in_the_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(midpoint, "NETWORKS", SMALL)
    monkeypatch.setattr(midpoint, "BATCH", 4)
    for name in SMALL:
        midpoint.main(["--networks", name, "--rounds", "3", "--out", str(tmp_path)])
    rows = read_receipt(tmp_path)["metrics"]["rows"]
    assert list(rows) == list(SMALL)
    for row in rows.values():
        medians = {name: statistics.median(times) for name, times in row["all"].items()}
        assert row["midpoint / plain"] == pytest.approx(medians["midpoint"] / medians["plain"])
