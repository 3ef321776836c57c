"""What became of planted permutations: one line a problem and method, as a table and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.table import Table

from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin.plots import Bar, plot_barriers


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many seeds were solved, and the median and range of iterations and seconds where they were."""
    table = []
    for problem, method in dict.fromkeys((row["problem"], row["method"]) for row in rows):
        chosen = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
        solved = [row for row in chosen if row["iteration"] is not None]
        entry: dict[str, Any] = {
            "problem": problem,
            "method": method,
            "seeds": len(chosen),
            "recovered": len(solved),
        }
        for key in ("iteration", "seconds"):
            values = [row[key] for row in solved]
            entry[f"median_{key}"] = statistics.median(values) if values else None
            entry[f"least_{key}"], entry[f"most_{key}"] = (
                (min(values), max(values)) if values else (None, None)
            )
        table.append(entry)
    return table


def readable(table: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The table as it is printed and shown in RESULTS.md."""
    shown = []
    for entry in table:
        cells = {
            "problem": entry["problem"],
            "method": entry["method"],
            "recovered": f"{entry['recovered']} of {entry['seeds']}",
            "iterations (median, range)": "",
            "seconds (median, range)": "",
        }
        if entry["recovered"]:
            low, high = entry["least_iteration"], entry["most_iteration"]
            cells["iterations (median, range)"] = f"{entry['median_iteration']:g} ({low}-{high})"
            low, high = entry["least_seconds"], entry["most_seconds"]
            cells["seconds (median, range)"] = f"{entry['median_seconds']:.2f} ({low:.2f}-{high:.2f})"
        shown.append(cells)
    return shown


def printable(rows: Sequence[dict[str, Any]]) -> Table:
    """One line a problem and method, for the terminal."""
    lines = readable(summarise(rows))
    table = Table(*lines[0], title="planted permutations")
    for line in lines:
        table.add_row(*line.values())
    return table


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Iterations and seconds to the planted permutation."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(15, 5.5))
    for ax, key, label in zip(axes, ("iteration", "seconds"), ("iterations", "seconds"), strict=True):
        bars = [
            Bar(e["problem"], e["method"], e[f"median_{key}"], e[f"least_{key}"], e[f"most_{key}"])
            for e in summarise(rows)
            if e[f"median_{key}"] is not None
        ]
        if bars:
            plot_barriers(bars, ax, log=True)
        ax.set_ylabel(f"{label} until recovered")
        ax.tick_params(axis="x", rotation=30)
    figure.suptitle(
        "Planted permutations: median and range over the seeds that were solved (no bar: none was)"
    )
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    save_picture(figure, out / "planted.png")
    plt.close(figure)
