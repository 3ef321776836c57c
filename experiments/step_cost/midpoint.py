"""What does a step on the midpoint loss cost, beside a plain training step of the same network?

    python -m experiments.step_cost.midpoint --out experiments/results/step_cost_midpoint

A plain step is forward, cross-entropy, backward and Adam on the network itself. A midpoint step is the same halfway
between the reference and the softly permuted target, with Adam on the scores, which start at the identity plus a
tenth of noise at τ = 1. Both take the same batch of 128. They take turns, the first of a pair alternates, and each
counts its median: seconds of the processor, as other programs take their share of the wall clock. One thread. The
table shows the middle half of the ratios of the turns too. Networks that were measured before stay in the receipt.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.models import COST_NETWORKS, Architecture
from experiments.reporting.receipts import read_receipt, write_receipt
from experiments.step_cost.turns import alternating, plain_step, quartiles_of_ratios
from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin

BATCH = 128
NETWORKS = {
    "MLP 3x512": COST_NETWORKS["MLP 784-512x3-10"],
    "VGG11-BN": COST_NETWORKS["VGG11-BN"],
    "GPT 2x768, 64 tokens": Architecture(
        "gpt", (1, 64), {"vocabulary": 256, "context": 64, "width": 768, "depth": 2, "heads": 12}
    ),
}
console = Console()


def batch_of(architecture: Architecture, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs, and a label for each, or the next of each token."""
    shape = (count, *architecture.input_shape[1:])
    if "vocabulary" in architecture.arguments:
        tokens = torch.randint(architecture.arguments["vocabulary"], (count, shape[1] + 1))
        return tokens[:, :-1], tokens[:, 1:]
    return torch.randn(shape), torch.randint(10, (count,))


def midpoint_step(rebasin: SinkhornRebasin, batch: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A step of the scores on the loss of the network in the middle."""
    rebasin.train()
    loss, optimizer = MidpointLoss(), torch.optim.Adam(rebasin.parameters(), 0.1)

    def step() -> None:
        optimizer.zero_grad()
        loss(rebasin, batch).backward()
        optimizer.step()

    return step


def measured(architecture: Architecture, rounds: int) -> dict[str, Any]:
    """Medians of both steps, their ratio, and its middle half over the turns."""
    torch.manual_seed(0)
    plain, reference, target = (architecture.build() for _ in range(3))
    batch = batch_of(architecture, BATCH)
    rebasin = SinkhornRebasin(
        reference, target, batch[0][:2], start="identity", noise=0.1, check=False, candidates="all"
    )
    steps = {"plain": plain_step(plain, batch), "midpoint": midpoint_step(rebasin, batch)}
    times = alternating(steps, rounds)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "plain step, ms": medians["plain"],
        "midpoint step, ms": medians["midpoint"],
        "midpoint / plain": medians["midpoint"] / medians["plain"],
        "middle half": quartiles_of_ratios(times["midpoint"], times["plain"]),
        "all": times,
    }


def readable(rows: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The table as it is printed and shown in RESULTS.md."""
    table = []
    for name, row in rows.items():
        low, high = row["middle half"]
        cells = {key: f"{row[key]:.3g}" for key in ("plain step, ms", "midpoint step, ms")}
        ratio = f"{row['midpoint / plain']:.3g} ({low:.3g}-{high:.3g})"
        table.append({"network": name, **cells, "midpoint / plain": ratio})
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network and keep the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("runs/step_cost_midpoint"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    receipt = options.out / "receipt.json"
    rows = read_receipt(options.out)["metrics"]["rows"] if receipt.is_file() else {}
    for name in options.networks:
        rows[name] = measured(NETWORKS[name], options.rounds)
        metrics = {"readme": readable(rows), "rows": rows}
        config = {"rounds": options.rounds, "batch": BATCH, "threads": 1}
        write_receipt(options.out, experiment="step_cost_midpoint", config=config, metrics=metrics, seeds=[0])
    console.print(readable(rows))


if __name__ == "__main__":
    main()
