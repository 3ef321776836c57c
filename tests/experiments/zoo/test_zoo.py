"""The zoo's figures: an unsound, an unhuman and a failing network show up as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.reporting.receipts import read_receipt
from experiments.zoo import __main__ as zoo
from experiments.zoo.entry import Entry
from experiments.zoo.exceptions import exceptions
from experiments.zoo.measurement import measure, summary
from experiments.zoo.tables import exception_rows
from sinkhorn_rebasin import discover_symmetry
from tests.cases import CASES


class CumulativeSum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)


def ordered() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), CumulativeSum(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


def inputs() -> torch.Tensor:
    return torch.randn(4, 3)


def test_exceptions_name_the_operation_and_count_elements() -> None:
    spec = discover_symmetry(ordered(), inputs())
    assert exceptions(spec) == [
        {
            "reason": "aten.cumsum depends on the order of its axis",
            "elements": 15 + 5,
            "tensors": 2,
            "example": "0.weight",
        },
        {"reason": "output of the network", "elements": 2, "tensors": 1, "example": "4.bias"},
    ]
    assert exceptions(spec, most=1)[1] == {"reason": "all others", "elements": 2}


def test_exceptions_and_coverage_add_up() -> None:
    for case in CASES[:40]:
        model = case.make()
        spec = discover_symmetry(model, case.make_inputs())
        total = sum(p.numel() for p in dict.fromkeys(model.parameters()))
        listed = sum(
            tensor.numel() for tensor in dict(model.named_parameters(remove_duplicate=False)).values()
        )
        if total == listed:
            assert sum(row["elements"] for row in exceptions(spec)) == round(total * (1 - spec.coverage))


def test_a_failing_and_an_unhuman_network_are_figures_too() -> None:
    rows = [
        measure(Entry("ordered", ordered, inputs, lambda spec: len(spec.groups) == 2)),
        measure(Entry("wrong inputs", ordered, lambda: torch.randn(4, 7))),
    ]
    assert rows[0]["sound"]
    assert not rows[0]["as a human"]
    assert not rows[1]["sound"]
    assert "ArchitectureError" in rows[1]["error"]
    figures = summary(rows)
    assert (figures["networks"], figures["sound"], figures["as_a_human"]) == (2, 1, 0)
    assert exception_rows(rows)[0]["elements"] == 20


def test_the_command_leaves_picture_and_receipt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo.main(["--families", "own", "--only", "mlp_relu", "cumulative_sum", "--out", str(tmp_path)])
    assert "aten.cumsum" in capsys.readouterr().out
    metrics = read_receipt(tmp_path / "own")["metrics"]
    assert metrics["readme"][0]["sound"] == "2 of 2"
    assert metrics["readme"][0]["groups as a human's"] == "2 of 2"
    assert {row["network"] for row in metrics["exceptions"]} == {"mlp_relu", "cumulative_sum", ""}
    assert (tmp_path / "own" / "zoo.png").stat().st_size > 5000
