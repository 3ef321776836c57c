"""How much faster is this tree than an earlier one: a data-free step, the soft permutation, weight matching?

    git worktree add ../before 3de742f
    python -m experiments.earlier --earlier ../before

Each case runs in fresh processes with one thread, one of the earlier tree and some of this one. They take turns,
time after time; the first two times are not counted (``--not-counted``). The ratio of a turn is that of its own pair,
so that other work on the machine meets both; the table shows the median ratio and its quartiles. Steps of ``"inner"``
with a fraction of the columns are stochastic: another algorithm than the earlier one, which has an exact l2 gradient
at every step. Weight matching is one pass of two language models of one block with random weights, of ``--width``.
Prints a table and leaves a receipt in OUT, in which cases that were measured before stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.reporting.receipts import write_receipt

REPOSITORY = Path(__file__).parents[2]
WORK = REPOSITORY / "experiments" / "earlier" / "work.py"
NETWORKS = ("MLP 784-512x3-10", "ResNet20 1x", "VGG11-BN", "ResNet18", "ResNet50")
LOSSES = (("l2", "1.0"), ("inner", "1.0"), ("inner", "0.125"))
SIZES, TEMPERATURES, SCORES = ("8", "16", "64", "128", "256"), ("1.0", "0.3", "0.1"), ("identity", "noise")

Case = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show and keep; every case is kept as soon as it is measured."""
    options = parse(arguments)
    receipt = options.out / "receipt.json"
    rows = json.loads(receipt.read_text())["metrics"]["rows"] if receipt.is_file() else {}
    for pairs in cases(options):
        rows |= in_turn(options.earlier, pairs, options.turns, options.not_counted)
        config = {"earlier": "3de742f", "threads": 1}
        metrics = {"readme": table_of(rows), "rows": rows}
        write_receipt(options.out, experiment="earlier", config=config, metrics=metrics, seeds=[0])
    show(rows)


def cases(options: argparse.Namespace) -> list[list[tuple[Case, Case]]]:
    """What takes turns: pairs of what is measured in the earlier tree and in this one."""
    groups: list[list[tuple[Case, Case]]] = []
    if "step" in options.jobs:
        groups += [
            [(("step", name, "l2", "1.0"), ("step", name, *loss)) for loss in LOSSES]
            for name in options.networks
        ]
    if "operator" in options.jobs:
        operators = [("operator", *case) for case in itertools.product(SIZES, TEMPERATURES, SCORES)]
        groups.append([(case, case) for case in operators])
    if "matching" in options.jobs:
        groups.append([(case, case) for case in [("matching", options.width)]])
    return groups


def in_turn(
    earlier: Path, pairs: Sequence[tuple[Case, Case]], turns: int, not_counted: int = 2
) -> dict[str, Any]:
    """Let processes of the earlier tree and of this one take turns; a row for each case of this tree."""
    befores = list(dict.fromkeys(before for before, _ in pairs))
    first: dict[Case, list[float]] = {case: [] for case in befores}
    times: dict[Case, list[float]] = {case: [] for _, case in pairs}
    with ExitStack() as running:
        started: dict[tuple[Path, Case], subprocess.Popen[str]] = {}

        def seconds_of(tree: Path, case: Case) -> float:
            """Have the work done once more by the process for it."""
            command, line = (case[:1], " ".join(case[1:])) if case[0] == "operator" else (case, "")
            if (tree, command) not in started:
                started[tree, command] = running.enter_context(process(tree, command))
            return seconds(started[tree, command], line)

        for _ in range(turns + not_counted):
            for case in befores:
                first[case].append(seconds_of(earlier, case))
            for case in times:
                times[case].append(seconds_of(REPOSITORY, case))
    return {
        " ".join(case): row(first[before][not_counted:], times[case][not_counted:]) for before, case in pairs
    }


def process(tree: Path, case: Case) -> subprocess.Popen[str]:
    """A process that does one kind of work in a tree."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree.absolute())}
    command = [sys.executable, str(WORK), *case]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=tree, env=environment, **pipes)


def seconds(worker: subprocess.Popen[str], line: str) -> float:
    """Have the work that a line names done once more; its processor time."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def row(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Median milliseconds, and the ratios of all turns with their quartiles."""
    ratios = [one / other for one, other in zip(before, after, strict=True)]
    spread = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    medians = {"earlier_ms": 1e3 * statistics.median(before), "now_ms": 1e3 * statistics.median(after)}
    return {**medians, "ratio": spread[1], "quartiles": [spread[0], spread[2]], "ratios": ratios}


def table_of(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a case."""
    lines = []
    for name, found in rows.items():
        low, high = found["quartiles"]
        line = {"case": name, "turns": len(found["ratios"]), "earlier, ms": f"{found['earlier_ms']:.3g}"}
        line |= {"now, ms": f"{found['now_ms']:.3g}", "times as fast": f"{found['ratio']:.2f}"}
        lines.append(line | {"middle half": f"{low:.2f} to {high:.2f}"})
    return lines


def show(rows: dict[str, Any]) -> None:
    """Print the lines of all cases."""
    lines = table_of(rows)
    table = Table(*lines[0], title="processor time, one thread")
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console(width=120).print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.earlier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs = ("step", "operator", "matching")
    parser.add_argument("--earlier", type=Path, required=True, help="a worktree of an earlier commit")
    parser.add_argument("--jobs", nargs="+", choices=jobs, default=list(jobs))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--width", default="384", help="of the language model for weight matching")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--not-counted", type=int, default=2, help="turns before those that count")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "experiments" / "results" / "earlier")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
