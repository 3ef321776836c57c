"""Sizes that were measured stand in one table, with the commands that measured them."""

from __future__ import annotations

from pathlib import Path

from experiments.reporting.receipts import read_receipt, write_receipt
from experiments.size.table import RECOVERED, write_table


def test_every_verb_of_every_size_has_a_row(tmp_path: Path) -> None:
    took = {"seconds": 2.04, "processor seconds": 1.0, "peak GB": 0.25}
    measured = {
        "small": {
            **{f"{verb} {what}": v for verb in ("align", "copy") for what, v in took.items()},
            RECOVERED: 1.0,
        },
        "resnet50": {f"merge {what}": value for what, value in took.items()},
    }
    for name, metrics in measured.items():
        write_receipt(tmp_path / name, experiment="size", config={}, metrics=metrics, seeds=[0])
    write_table(tmp_path)
    receipt = read_receipt(tmp_path)
    rows = receipt["metrics"]["rows"]
    assert [(row["networks"], row["command"]) for row in rows] == [
        ("ResNet50", "merge"),
        ("Llama-like, tiny", "align"),
        ("Llama-like, tiny", "copy"),
    ]
    assert [row.get("tensors recovered") for row in rows] == [None, "100 %", None]
    assert rows[0]["seconds"] == 2.0
    assert len(receipt["commands"]) == 1  # the same command wrote both
