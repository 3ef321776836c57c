"""Has discovery become slower? Two checkouts of the repository, network by network, in turns.

    python -m experiments.zoo.discovery_time --before ../before --out experiments/results/zoo/discovery_time

``--before`` is a checkout of another commit (``git worktree add ../before COMMIT``). Each tree has a process of its
own, which builds a network of torchvision from one seed and times ``discover_symmetry`` on it: seconds of the
processor, as other programs take their share of the wall clock. The trees take turns, the first of a pair alternates,
and each counts its quickest run. Leaves a receipt with every time in OUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from experiments.reporting.receipts import write_receipt
from experiments.zoo.torchvision_models import entries

# Read by Python from the command line, so that both trees import their own package.
WORKER = """
import json, sys, time, warnings
import torch
from experiments.zoo.torchvision_models import entries
from sinkhorn_rebasin import discover_symmetry

warnings.simplefilter("ignore")
torch.set_num_threads(1)
known = {entry.name: entry for entry in entries()}
for name in map(str.strip, sys.stdin):
    torch.manual_seed(0)
    model, inputs = known[name].make().eval(), known[name].inputs()
    start = time.process_time()
    spec = discover_symmetry(model, inputs)
    row = {"seconds": time.process_time() - start, "groups": len(spec.groups), "covered": spec.coverage}
    print(json.dumps(row), flush=True)
"""
console = Console()


class Tree:
    """A process that times discovery in one checkout."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measured(self, name: str) -> dict[str, Any]:
        """Seconds, number of groups and covered share of one network."""
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("Expected a process with pipes but got one without.")
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        row: dict[str, Any] = json.loads(self._process.stdout.readline())
        return row


def times(before: Path, names: Sequence[str], repeat: int) -> list[dict[str, Any]]:
    """A row for each network, with the ratio of the quickest runs."""
    trees = {"before": Tree(before), "after": Tree(Path.cwd())}
    rows = []
    for name in track(names, "networks of torchvision", console=console):
        runs: dict[str, list[dict[str, Any]]] = {which: [] for which in trees}
        for turn in range(repeat):
            for which in sorted(trees, reverse=turn % 2 == 0):
                runs[which].append(trees[which].measured(name))
        best = {which: min(run["seconds"] for run in found) for which, found in runs.items()}
        rows.append(
            {"network": name, "ratio": best["after"] / best["before"]}
            | {f"seconds {which}": [run["seconds"] for run in found] for which, found in runs.items()}
            | {f"groups {which}": found[0]["groups"] for which, found in runs.items()}
            | {f"covered {which}": found[0]["covered"] for which, found in runs.items()}
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both trees and keep the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/zoo/discovery_time"))
    options = parser.parse_args(arguments)
    names = options.only or [entry.name for entry in entries()]
    rows = times(options.before, names, options.repeat)
    ratios = sorted(row["ratio"] for row in rows)
    totals = [sum(min(row[f"seconds {which}"]) for row in rows) for which in ("before", "after")]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [*ratios, *ratios, *ratios]
    metrics = {
        "readme": [
            {
                "networks": len(rows),
                "seconds after / before, median": f"{statistics.median(ratios):.2f}",
                "middle half": f"{quartiles[0]:.2f} to {quartiles[2]:.2f}",
                "range": f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            }
        ],
        "networks": len(rows),
        "ratio, median": statistics.median(ratios),
        "ratio, range": [ratios[0], ratios[-1]],
        "ratio, quartiles": quartiles,
        "ratio of the sums": totals[1] / totals[0],
        "slower than 1.15": [row["network"] for row in rows if row["ratio"] > 1.15],
        "rows": rows,
    }
    console.print({name: value for name, value in metrics.items() if name not in ("rows", "readme")})
    write_receipt(
        options.out,
        experiment="discovery_time",
        config={"before": options.before.name, "repeat": options.repeat},
        metrics=metrics,
        seeds=[0],
    )


if __name__ == "__main__":
    main()
