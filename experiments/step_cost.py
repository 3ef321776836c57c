"""What does one data-free training step and one eval step cost, beside the published implementation?

    python -m experiments.step_cost --published-python .venv-published/bin/python

For each network, ours and the published implementation are timed in turn, each in a fresh process with one thread
(memory is the whole process's peak). A training step is forward (soft permutations of all weights), l2 loss,
backward and AdamW; an eval step is the hard permutation of all weights from the scores, and the loss. Scores
start at the identity plus 0.1 times noise in both. Prints a table and leaves a figure and a receipt in OUT.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.models import COST_NETWORKS
from experiments.published import published_step_cost
from experiments.receipts import write_receipt
from sinkhorn_rebasin.plots import Bar, plot_barriers

console = Console(width=max(Console().width, 120))
FIGURES = ("train_ms", "eval_ms", "peak_memory_mb")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both in turn, show and keep."""
    options = parse(arguments)
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        for turn in track(range(options.rounds), name, console=console):
            rows.append(
                {"network": name, "method": "ours", "round": turn, **in_process(name, options.repeat)}
            )
            if options.published_python is not None:
                cost = published_step_cost(options.published_python, [name], repeat=options.repeat)[name]
                rows.append({"network": name, "method": "published", "round": turn, **cost})
    table = summarise(rows)
    print_table(table)
    draw(rows, options.out)
    config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    write_receipt(
        options.out,
        experiment="step_cost",
        config=config,
        metrics={"rows": rows, "table": table, "readme": readable(table)},
        seeds=[0],
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(COST_NETWORKS), default=list(COST_NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--published-python", type=Path, default=None, help="see experiments/published")
    parser.add_argument("--out", type=Path, default=Path("runs/step_cost"))
    return parser.parse_args(arguments)


def in_process(name: str, repeat: int) -> dict[str, Any]:
    """Our figures of one network from a fresh process."""
    command = [sys.executable, "-m", "experiments.own_step_cost", name, str(repeat)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


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


def print_table(table: Sequence[dict[str, Any]]) -> None:
    """One line a network."""
    lines = readable(table)
    shown = Table(
        *lines[0], title="one data-free step, one thread: ours / published, ratio (range over rounds)"
    )
    for line in lines:
        shown.add_row(*line.values())
    console.print(shown)


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
    figure.savefig(out / "step_cost.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
