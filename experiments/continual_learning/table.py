"""Sums runs up: one line a method, over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from experiments.continual_learning.runs import Run

COLUMNS = ("average accuracy", "forgetting", "learning accuracy", "forward transfer", "seconds")


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every method; None where there is none."""
    table = []
    for method in dict.fromkeys(run.method for run in runs):
        figures = [run.figures() for run in runs if run.method == method]
        entry: dict[str, Any] = {"method": method, "runs": len(figures)}
        for column in COLUMNS:
            values = [value for value in (each[column] for each in figures) if value is not None]
            entry[column] = statistics.mean(values) if values else None
            entry[f"{column} sd"] = statistics.stdev(values) if len(values) > 1 else None
        table.append(entry)
    return table


def readable(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The table as RESULTS.md shows it: mean ± standard deviation over seeds, in percent."""
    return [
        {"method": entry["method"], **{column: _shown(entry, column) for column in COLUMNS}}
        for entry in summarise(runs)
    ]


def _shown(entry: dict[str, Any], column: str) -> str:
    if entry[column] is None:
        return ""
    text, deviation = f"{entry[column]:.1f}", entry[f"{column} sd"]
    return text if column == "seconds" or deviation is None else f"{text} ± {deviation:.1f}"
