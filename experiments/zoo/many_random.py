"""Does discovery ever change a function silently? Thousands of random networks, checked by loading them.

    python -m experiments.zoo.many_random --first 100000 --networks 10000 --processes 2

Each network is built from its seed with random weights, all groups that discovery finds are permuted at random in
float64, and the outputs on fresh inputs compared, by ``load_state_dict`` and a plain forward: nothing of the
package's own verification is used. Finished seeds are kept in ROWS, so that a stopped run goes on. Leaves a receipt
of the counts in OUT, with every seed that was unsound, refused or warned of.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils._pytree import tree_map

from experiments.reporting.receipts import write_receipt
from experiments.zoo.measurement import FAILURES, SOUND
from experiments.zoo.random_models import entry
from experiments.zoo.sensitivity import redraw
from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations
from sinkhorn_rebasin.errors import CoverageWarning, RebasinWarning
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in

TRIALS = 2
console = Console()


def measured(seed: int) -> dict[str, Any]:
    """The row of one network: its largest change, or why there is none."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = entry(seed)
    row: dict[str, Any] = {"seed": seed, "network": network.name}
    try:
        model, inputs = redraw(network.make()).eval(), network.inputs()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", RebasinWarning)
            spec = discover_symmetry(model, inputs)
        row |= {"groups": len(spec.groups), "covered": spec.coverage}
        row["warnings"] = [
            str(one.message)[:120]
            for one in told
            if issubclass(one.category, RebasinWarning) and not issubclass(one.category, CoverageWarning)
        ]
        row["change"] = max(_change(model, spec, network.inputs(), trial) for trial in range(TRIALS))
    except FAILURES as error:
        row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


@torch.no_grad()
def _change(model: Any, spec: Any, inputs: Any, trial: int) -> float:
    """Largest relative change of the output when the network is loaded with permuted weights, in float64."""
    wide = copy.deepcopy(model).double()
    moved = permute_state(
        wide.state_dict(), spec, random_permutations(spec, generator=torch.Generator().manual_seed(trial))
    )
    twin = copy.deepcopy(wide)
    twin.load_state_dict(moved)
    inputs = tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)
    return largest_change(tensors_in(_called(wide, inputs)), tensors_in(_called(twin, inputs)))


def _called(network: Any, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def rows(seeds: Sequence[int], processes: int, kept: Path) -> list[dict[str, Any]]:
    """Rows of all seeds, those that are kept already as they are."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text().splitlines() if kept.exists() else []
    done = {row["seed"]: row for row in map(_row, lines) if row is not None}
    open_seeds = [seed for seed in seeds if seed not in done]
    with multiprocessing.get_context("spawn").Pool(processes) as pool, kept.open("a") as file:
        found: Iterator[dict[str, Any]] = pool.imap_unordered(measured, open_seeds, chunksize=8)
        for row in track(found, "random networks", total=len(open_seeds), console=console):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["seed"]] = row
    return [done[seed] for seed in seeds]


def _row(line: str) -> dict[str, Any] | None:
    """One kept row; None for a line that was cut short."""
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row


def counts(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the networks look like as a whole, and the seeds to look at."""
    run = [row for row in found if "change" in row]
    covered = sorted(row["covered"] for row in run)
    unsound = [row for row in run if not row["change"] <= SOUND]
    return {
        "networks": len(found),
        "sound": len(run) - len(unsound),
        "unsound": len(unsound),
        "unsound and not told": sum(not row["warnings"] for row in unsound),
        "errors": len(found) - len(run),
        "warned": sum(bool(row["warnings"]) for row in run),
        "largest change": max((row["change"] for row in run), default=None),
        "median covered": covered[len(covered) // 2] if covered else None,
        "readme": [
            {
                "networks": f"{len(found):,}",
                "sound": f"{len(run) - len(unsound):,}",
                "changed silently": sum(not row["warnings"] for row in unsound),
                "errors": len(found) - len(run),
                "largest change": f"{max((row['change'] for row in run), default=0.0):.0e}",
                "covered, median": f"{covered[len(covered) // 2]:.1%}" if covered else "",
            }
        ],
        "to look at": [row for row in found if row in unsound or "error" in row or row.get("warnings")],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks of a range of seeds, show and keep the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=100_000)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=Path("runs/zoo/many_random.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("runs/zoo/many_random"))
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.networks)
    metrics = counts(rows(seeds, options.processes, options.rows))
    console.print({name: value for name, value in metrics.items() if name not in ("readme", "to look at")})
    write_receipt(
        options.out,
        experiment="many_random",
        config={"first": options.first, "networks": options.networks, "trials": TRIALS},
        metrics=metrics,
        seeds=[options.first, options.first + options.networks - 1],
    )


if __name__ == "__main__":
    main()
