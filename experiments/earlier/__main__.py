"""How much faster is this tree than an earlier one: a data-free step, the soft permutation, weight matching?

    git worktree add ../before 3de742f
    python -m experiments.earlier --earlier ../before

Each measurement runs in a fresh process with one thread, the earlier tree and this one in turn, round after round;
the ratio of a round is that of its own pair. The table shows the median ratio and the range over rounds. Steps of
``"inner"`` with a fraction of the columns are stochastic: another algorithm than the earlier one, which has an exact
l2 gradient at every step. Prints a table and leaves a receipt in OUT, to which later runs add
their rounds.
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

from rich.console import Console
from rich.table import Table

from experiments.reporting.receipts import write_receipt

REPOSITORY = Path(__file__).parents[2]
WORK = REPOSITORY / "experiments" / "earlier" / "work.py"
NETWORKS = ("MLP 784-512x3-10", "ResNet20 1x", "VGG11-BN", "ResNet18", "ResNet50")
LOSSES = (("l2", 1.0), ("inner", 1.0), ("inner", 0.125))
WIDTHS = ("384",)
SIZES, TEMPERATURES, SCORES = (16, 64, 128, 256), (1.0, 0.1), ("identity", "noise")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show and keep; every round is kept as soon as it is measured."""
    options = parse(arguments)
    config = {"earlier": "3de742f", "threads": 1, "repeat": options.repeat}
    rows = kept(options.out)
    for job in options.jobs:
        for before, after in cases(job, options):
            for _ in range(options.rounds):
                first = measured(options.earlier, before)
                for name, case in after.items():
                    title = f"{' '.join(before[:2] if job == 'step' else before[:4])}: {name}"
                    rows[title] = summary(rows.get(title), first, measured(REPOSITORY, case))
                metrics = {"rows": rows}
                write_receipt(options.out, experiment="earlier", config=config, metrics=metrics, seeds=[0])
    show(rows)


def cases(job: str, options: argparse.Namespace) -> list[tuple[list[str], dict[str, list[str]]]]:
    """What is measured in the earlier tree, and by name what in this one."""
    if job == "step":
        repeat = str(options.repeat)
        return [
            (
                ["step", network, "l2", "1.0", repeat],
                {
                    f"{kind}, {fraction:g} of the columns": ["step", network, kind, str(fraction), repeat]
                    for kind, fraction in LOSSES
                },
            )
            for network in options.networks
        ]
    if job == "operator":
        found = [
            ["operator", str(size), str(temperature), kind, "40"]
            for size in SIZES
            for temperature in TEMPERATURES
            for kind in SCORES
        ]
        return [(case, {"sinkhorn": case}) for case in found]
    return [(["matching", width, "1"], {"one pass": ["matching", width, "1"]}) for width in WIDTHS]


def measured(tree: Path, case: Sequence[str]) -> dict[str, Any]:
    """One measurement in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree.absolute())}
    command = [sys.executable, str(WORK), *case]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tree)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def summary(row: dict[str, Any] | None, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Add a round to a row: medians, and the ratio of each round's pair with its range."""
    unit = "ms" if "ms" in first else "seconds"
    rounds = [*(row or {"rounds": []})["rounds"], [first[unit], second[unit]]]
    ratios = [one / other for one, other in rounds]
    found = {
        "unit": unit,
        "earlier": statistics.median(one for one, _ in rounds),
        "now": statistics.median(other for _, other in rounds),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "rounds": rounds,
    }
    return found | ({"objectives": [first["objective"], second["objective"]]} if "objective" in first else {})


def kept(out: Path) -> dict[str, Any]:
    """Rows of an earlier run in the same folder."""
    receipt = out / "receipt.json"
    return json.loads(receipt.read_text())["metrics"]["rows"] if receipt.is_file() else {}


def show(rows: dict[str, Any]) -> None:
    """One line a case."""
    table = Table("case", "earlier", "now", "ratio (range)", title="processor time, one thread")
    for name, row in rows.items():
        low, high = row["ratio_range"]
        cells = (
            f"{row['earlier']:.4g} {row['unit']}",
            f"{row['now']:.4g}",
            f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})",
        )
        table.add_row(name, *cells)
    Console(width=120).print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.earlier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--earlier", type=Path, required=True, help="a worktree of an earlier commit")
    parser.add_argument(
        "--jobs", nargs="+", choices=("step", "operator", "matching"), default=["step", "operator"]
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "experiments" / "results" / "earlier")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
