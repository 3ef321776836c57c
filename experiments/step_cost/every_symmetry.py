"""What does a learned step over every symmetry cost, beside a plain training step of the same network?

    python -m experiments.step_cost.every_symmetry --out experiments/results/step_cost_every_symmetry

A plain step is forward, cross-entropy, backward and Adam on the network itself. A learned step is the same at a
random point between the reference and the turned target, with Adam on the maps. Both take the same batch. They take
turns, the first of a pair alternates, and each counts its median: seconds of the processor, as other programs take
their share of the wall clock.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.models.transformer import ViT
from experiments.reporting.receipts import write_receipt
from experiments.step_cost.turns import alternating, plain_step
from sinkhorn_rebasin import RandomPointLoss, SinkhornRebasin

BATCH = 128
WAYS: dict[str, dict[str, Any]] = {
    "permutations": {},
    "every symmetry": {"symmetry": "full"},
    "every symmetry, both sides": {"symmetry": "full", "both_sides": True},
}
console = Console()


def learned_step(rebasin: SinkhornRebasin, batch: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A step of the re-basin's parameters on the loss at a random point."""
    rebasin.train()
    loss = RandomPointLoss(low=0.4, high=0.6)
    optimizer = torch.optim.Adam([each for each in rebasin.parameters() if each.requires_grad], 0.03)

    def step() -> None:
        optimizer.zero_grad()
        loss(rebasin, batch).backward()
        optimizer.step()

    return step


def measured(way: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both steps, and their ratio."""
    torch.manual_seed(0)
    sizes = {"width": options.width, "depth": options.depth, "heads": options.heads}
    plain, reference, target = (ViT(size=32, patch=8, **sizes) for _ in range(3))
    batch = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    rebasin = SinkhornRebasin(reference, target, batch[0][:2], **way)
    times = alternating(
        {"plain": plain_step(plain, batch), "learned": learned_step(rebasin, batch)}, options.rounds
    )
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "plain step, ms": medians["plain"],
        "learned step, ms": medians["learned"],
        "learned / plain": medians["learned"] / medians["plain"],
        "all": times,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way and keep the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/step_cost_every_symmetry"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = {name: measured(way, options) for name, way in WAYS.items()}
    table = [
        {"learned": name, **{key: f"{value:.3g}" for key, value in row.items() if key != "all"}}
        for name, row in rows.items()
    ]
    console.print(table)
    config = {key: value for key, value in vars(options).items() if key != "out"} | {"batch": BATCH}
    metrics = {"readme": table, "rows": rows}
    write_receipt(
        options.out, experiment="step_cost_every_symmetry", config=config, metrics=metrics, seeds=[0]
    )


if __name__ == "__main__":
    main()
