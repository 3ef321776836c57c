"""One figure of every method in a few settings that differ in one thing, such as the width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.compare_methods.methods import METHODS
from experiments.compare_methods.table import across_settings, summarise
from experiments.reporting.receipts import markdown_table, read_receipt


def across_table(results: Path, names: Sequence[str], key: str) -> str:
    """Return a figure of the methods (rows) in these settings (columns, in this order).

    Args:
        results: folder of all results.
        names: folders of receipts of compared methods below it.
        key: of the figure, such as ``test_barrier``.

    Raises:
        DataError: a receipt is missing.
    """
    measured = [read_receipt(results / name.strip() / "receipt.json")["metrics"] for name in names]
    tables = {metrics["title"]: summarise(metrics["rows"]) for metrics in measured}
    rows = across_settings(tables, key)
    order = list(METHODS)
    return markdown_table(sorted(rows, key=lambda row: order.index(row["method"])))
