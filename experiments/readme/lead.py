"""One row for each setting of compared methods: the networks as they are, the peers, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.compare_methods.methods import PUBLISHED, names_of
from experiments.compare_methods.overview import read_receipts
from experiments.compare_methods.table import summarise
from experiments.reporting.receipts import markdown_table
from sinkhorn_rebasin.errors import DataError

OURS = ("ours, every symmetry", "ours")
"""What the package does by default; the second where there are no continuous symmetries."""


def lead_table(results: Path, folders: Sequence[str], key: str) -> str:
    """Return a figure of every setting below some folders: as they are, best peer, published, ours.

    Raises:
        DataError: there is no setting.
    """
    rows = [
        _row(receipt["metrics"]["title"], summarise(receipt["metrics"]["rows"]), key)
        for folder in folders
        for receipt in read_receipts(results / folder.strip())[0].values()
    ]
    if not rows:
        raise DataError(f"Expected receipts of settings in {', '.join(folders)} but got none.")
    return markdown_table(sorted(rows, key=lambda row: row["setting"]))


def _row(title: str, table: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    """Return the row of one setting.

    Example:
        >>> table = [{"method": "naive", "b": 2.0}, {"method": "OT fusion", "b": 1.0}, {"method": "ours", "b": 0.5}]
        >>> _row("MLP", table, "b")["best peer"]
        '1.000 (OT fusion)'
    """
    figures = {entry["method"]: entry[key] for entry in table}
    default = next((method for method in OURS if method in figures), "ours")
    ours = {"ours": _number(figures.get(default))}
    return {
        "setting": title,
        "as they are": _number(figures.get("naive")),
        "best peer": _least(figures, names_of("peer")),
        "published": _number(figures.get(PUBLISHED)),
        **({"best of ours": _least(figures, names_of("ours"))} if key == "repaired_barrier" else ours),
    }


def _least(figures: Mapping[str, float], methods: Sequence[str]) -> str:
    measured = [method for method in methods if method in figures]
    if not measured:
        return "–"
    best = min(measured, key=lambda method: figures[method])
    return f"{figures[best]:.3f} ({best})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
