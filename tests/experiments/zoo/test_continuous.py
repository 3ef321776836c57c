"""Continuous groups of a zoo's networks: figures, rows that are kept, errors that are told."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from experiments.reporting.receipts import read_receipt
from experiments.zoo import continuous
from experiments.zoo.entry import Entry


def bottleneck() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 4), nn.Linear(4, 2))


def inputs() -> torch.Tensor:
    return torch.randn(4, 3)


def test_a_network_has_kinds_seconds_and_a_proof() -> None:
    row = continuous.measured(Entry("bottleneck", bottleneck, inputs))
    assert (row["groups"], row["linear"], row["not larger without a reason"]) == (2, 1, [])
    assert row["proof error"] < 1e-9
    assert min(row["seconds, permutations"], row["seconds, continuous"]) > 0
    failed = continuous.measured(Entry("wrong", bottleneck, lambda: torch.randn(4, 7)))
    assert "ArchitectureError" in failed["error"]
    figures = continuous.summary([row, failed])
    assert (figures["networks"], figures["run"], figures["proven"], figures["linear"]) == (2, 1, 1, 1)
    assert figures["ratio of medians"] == row["seconds, continuous"] / row["seconds, permutations"]


def test_rows_are_kept_and_networks_that_have_one_are_passed_over(tmp_path: Path) -> None:
    options = ["--families", "own", "--rows", str(tmp_path), "--out", str(tmp_path)]
    continuous.main([*options, "--only", "mlp_relu"])
    continuous.main([*options, "--only", "mlp_relu", "cumulative_sum"])
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert [row["network"] for row in rows] == ["mlp_relu", "cumulative_sum"]
    metrics = read_receipt(tmp_path)["metrics"]
    assert metrics["summary"]["own"]["networks"] == 2
    assert metrics["rows"]["own"] == rows


def test_thirty_of_timm_are_named() -> None:
    assert len(continuous.TIMM) == 30
