"""Shows what a step costs, ours beside the published implementation's, as a table and as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin.plots import Bar, plot_barriers

FIGURES = ("train_ms", "eval_ms", "peak_memory_mb")


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over rounds, and the ratio published / ours of each round's pair with its range."""
    table = []
    for network in dict.fromkeys(row["network"] for row in rows):
        entry: dict[str, Any] = {"network": network}
        both = {
            m: [r for r in rows if r["network"] == network and r["method"] == m]
            for m in ("ours", "published")
        }
        entry["parameters"] = both["ours"][0]["parameters"]
        for figure in FIGURES:
            for method, chosen in both.items():
                if chosen:
                    entry[f"{method}_{figure}"] = statistics.median(row[figure] for row in chosen)
            if both["published"]:
                ratios = [p[figure] / o[figure] for o, p in zip(both["ours"], both["published"], strict=True)]
                entry[f"{figure}_ratio"] = statistics.median(ratios)
                entry[f"{figure}_ratio_range"] = [min(ratios), max(ratios)]
        table.append(entry)
    return table


def readable(table: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The table as it is printed and shown in RESULTS.md: ours, published, and how many times less ours takes."""
    shown = []
    titles = ("training step, ms", "eval step, ms", "peak memory, MB")
    for entry in table:
        cells = {"network": entry["network"]}
        for figure, title in zip(FIGURES, titles, strict=True):
            cells[title] = f"{entry[f'ours_{figure}']:.4g}"
            if f"published_{figure}" in entry:
                low, high = entry[f"{figure}_ratio_range"]
                cells[title] += f" / {entry[f'published_{figure}']:.4g}"
                cells[f"ratio, {title.split(',')[0]}"] = (
                    f"{entry[f'{figure}_ratio']:.3g} ({low:.3g}-{high:.3g})"
                )
        shown.append(cells)
    return shown


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Milliseconds and memory of both, network by network."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(20, 5.5))
    titles = ("training step (ms)", "eval step (ms)", "peak memory (MB)")
    for ax, key, title in zip(axes, FIGURES, titles, strict=True):
        bars = []
        for network, method in dict.fromkeys((row["network"], row["method"]) for row in rows):
            values = [row[key] for row in rows if (row["network"], row["method"]) == (network, method)]
            bars.append(Bar(network, method, statistics.median(values), min(values), max(values)))
        plot_barriers(bars, ax, log=True)
        ax.set_ylabel(title)
        ax.tick_params(axis="x", rotation=30)
    figure.suptitle("Cost of one data-free step, one thread: median and range over rounds")
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    save_picture(figure, out / "step_cost.png")
    plt.close(figure)
