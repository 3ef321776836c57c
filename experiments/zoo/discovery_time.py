"""Has discovery become slower? Two checkouts of the repository, network by network, in turns.

    python -m experiments.zoo.discovery_time --before ../before --out experiments/results/zoo/discovery_time

``--before`` is a checkout of another commit (``git worktree add ../before COMMIT``). Each tree has a process of its
own, which builds a network of torchvision from one seed and times ``discover_symmetry`` on it: seconds of the
processor, as other programs take their share of the wall clock. The trees take turns, the first of a pair alternates,
and each counts its quickest run. Specs are compared: how many groups there are, how much they cover, and all of their
JSON, in which earlier commits order groups otherwise. Of the slowest five, the shares of the parts of discovery are
sampled. ``--family`` takes another zoo. Rows are kept in OUT as they are made, and networks that have one are passed
over. Leaves a receipt with every time in OUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from experiments.reporting.receipts import write_receipt
from experiments.zoo.discovery_shares import SHARES, shares

# Read by Python from the command line, so that both trees import their own package.
WORKER = """
import hashlib, importlib, json, sys, time, warnings
import torch
from sinkhorn_rebasin import discover_symmetry

def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

warnings.simplefilter("ignore")
torch.set_num_threads(1)
known = {entry.name: entry for entry in importlib.import_module(sys.argv[1]).entries()}
print(json.dumps(list(known)), flush=True)
for name in map(str.strip, sys.stdin):
    torch.manual_seed(0)
    model, inputs = known[name].make().eval(), known[name].inputs()
    start = time.process_time()
    spec = discover_symmetry(model, inputs)
    row = {"seconds": time.process_time() - start, "groups": len(spec.groups), "covered": spec.coverage}
    print(json.dumps(row | {"json": digest(json.loads(spec.to_json()))}), flush=True)
"""
FAMILIES = {name: f"experiments.zoo.{name}_models" for name in ("own", "timm", "torchvision", "transformers")}
console = Console()


class Tree:
    """A process that times discovery in one checkout."""

    def __init__(self, folder: Path, family: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, FAMILIES[family]],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names: list[str] = self._answer()

    def _answer(self) -> Any:
        if self._process.stdout is None:
            raise OSError("Expected a process with pipes but got one without.")
        return json.loads(self._process.stdout.readline())

    def measured(self, name: str) -> dict[str, Any]:
        """Seconds, number of groups and covered share of one network."""
        if self._process.stdin is None:
            raise OSError("Expected a process with pipes but got one without.")
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        row: dict[str, Any] = self._answer()
        return row


def times(options: argparse.Namespace, file: Path) -> list[dict[str, Any]]:
    """A row for each network, with the ratio of the quickest runs."""
    trees = {"before": Tree(options.before, options.family), "after": Tree(Path.cwd(), options.family)}
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {row["network"] for row in rows}
    names = [name for name in options.only or trees["after"].names if name not in done]
    for place, name in enumerate(track(names, f"networks of {options.family}", console=console)):
        runs: dict[str, list[dict[str, Any]]] = {which: [] for which in trees}
        for turn in range(options.repeat):
            for which in sorted(trees, reverse=(turn + place) % 2 == 0):
                runs[which].append(trees[which].measured(name))
        rows.append(_row(name, runs))
        with file.open("a") as lines:
            lines.write(json.dumps(rows[-1]) + "\n")
    return rows


def _row(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the runs of both trees say of a network."""
    best = {which: min(run["seconds"] for run in found) for which, found in runs.items()}
    return (
        {"network": name, "ratio": best["after"] / best["before"]}
        | {f"seconds {which}": [run["seconds"] for run in found] for which, found in runs.items()}
        | {f"groups {which}": found[0]["groups"] for which, found in runs.items()}
        | {f"covered {which}": found[0]["covered"] for which, found in runs.items()}
        | {"same json": runs["before"][0]["json"] == runs["after"][0]["json"]}
    )


def slowest(rows: Sequence[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """The five networks that take longest now, with the shares of the parts of discovery."""
    known = {entry.name: entry for entry in import_module(FAMILIES[family]).entries()}
    found = []
    for row in sorted(rows, key=lambda row: -min(row["seconds after"]))[:5]:
        torch.manual_seed(0)
        entry = known[row["network"]]
        parts = shares(entry.make().eval(), entry.inputs())
        seconds = {which: f"{min(row[f'seconds {which}']):.1f}" for which in ("before", "after")}
        times = {f"seconds {which}": value for which, value in seconds.items()}
        found.append({"network": row["network"], **times, **{part: f"{parts[part]:.0%}" for part in SHARES}})
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All networks together."""
    ratios = sorted(row["ratio"] for row in rows)
    totals = [sum(min(row[f"seconds {which}"]) for row in rows) for which in ("before", "after")]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [*ratios, *ratios, *ratios]
    return {
        "readme": [
            {
                "networks": len(rows),
                "times as fast, median": f"{1 / statistics.median(ratios):.2f}",
                "middle half": f"{1 / quartiles[2]:.2f} to {1 / quartiles[0]:.2f}",
                "range": f"{1 / ratios[-1]:.2f} to {1 / ratios[0]:.2f}",
                "seconds of all, before": f"{totals[0]:.0f}",
                "after": f"{totals[1]:.0f}",
                "as many groups, as much covered": sum(_is_alike(row) for row in rows),
            }
        ],
        "networks": len(rows),
        "ratio, median": statistics.median(ratios),
        "ratio, range": [ratios[0], ratios[-1]],
        "ratio, quartiles": quartiles,
        "ratio of the sums": totals[1] / totals[0],
        "slower": [row["network"] for row in rows if row["ratio"] > 1],
        "other groups or coverage": [row["network"] for row in rows if not _is_alike(row)],
        "other json": [row["network"] for row in rows if not row["same json"]],
    }


def _is_alike(row: dict[str, Any]) -> bool:
    """Whether both trees find as many groups, which cover as much."""
    groups = row["groups before"] == row["groups after"]
    return bool(groups and abs(row["covered before"] - row["covered after"]) < 1e-9)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both trees and keep the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--family", choices=list(FAMILIES), default="torchvision")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=None, help="where rows are kept")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo/discovery_time"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = options.rows or options.out / "rows.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = times(options, file)
    metrics = {**summary(rows), "slowest": slowest(rows, options.family), "rows": rows}
    console.print({name: value for name, value in metrics.items() if name not in ("rows", "readme")})
    write_receipt(
        options.out,
        experiment="discovery_time",
        config={"before": options.before.name, "repeat": options.repeat, "family": options.family},
        metrics=metrics,
        seeds=[0],
    )


if __name__ == "__main__":
    main()
