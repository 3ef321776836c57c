"""One table over the sizes that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.reporting.receipts import read_receipt, write_receipt

NAMES = {
    "resnet50": "ResNet50",
    "vit_base": "ViT-B",
    "gpt2_small": "GPT-2 small",
    "small": "Llama-like, tiny",
    "billion": "Llama-like, 10⁹ weights in bfloat16",
}
VERBS = ("align", "apply", "merge", "copy")
RECOVERED = "share of tensors recovered bit by bit"


def write_table(out: Path) -> None:
    """Gather the receipts below a folder in one, with a row a verb."""
    receipts = {name: read_receipt(out / name) for name in NAMES if (out / name / "receipt.json").is_file()}
    rows = [row for name, receipt in receipts.items() for row in rows_of(name, receipt["metrics"])]
    commands = list(dict.fromkeys(receipt["command"] for receipt in receipts.values()))
    config = {"sizes": list(receipts)}
    write_receipt(out, experiment="size", config=config, metrics={"rows": rows}, seeds=[0], commands=commands)


def rows_of(name: str, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each verb that a size was measured with.

    >>> metrics = {"copy seconds": 2.04, "copy processor seconds": 1.0, "copy peak GB": 0.3}
    >>> rows_of("vit_base", metrics)
    [{'networks': 'ViT-B', 'command': 'copy', 'seconds': 2.0, 'processor seconds': 1.0, 'peak GB': 0.3}]
    """
    rows = []
    for verb in VERBS:
        if f"{verb} seconds" in metrics:
            row = {"networks": NAMES[name], "command": verb}
            row |= {
                what: round(metrics[f"{verb} {what}"], 1)
                for what in ("seconds", "processor seconds", "peak GB")
            }
            rows.append(row)
    if RECOVERED in metrics:
        rows[0]["tensors recovered"] = f"{100 * metrics[RECOVERED]:.0f} %"
    return rows
