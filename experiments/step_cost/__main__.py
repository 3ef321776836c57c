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
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.models import COST_NETWORKS
from experiments.published import published_step_cost
from experiments.reporting.receipts import write_receipt
from experiments.step_cost.table_and_figure import draw, readable, summarise

console = Console(width=max(Console().width, 120))


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
    command = [sys.executable, "-m", "experiments.step_cost.own", name, str(repeat)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_table(table: Sequence[dict[str, Any]]) -> None:
    """One line a network."""
    lines = readable(table)
    shown = Table(
        *lines[0], title="one data-free step, one thread: ours / published, ratio (range over rounds)"
    )
    for line in lines:
        shown.add_row(*line.values())
    console.print(shown)


if __name__ == "__main__":
    main()
