"""How much is left of earlier tasks after learning later ones?

    python -m experiments.continual_learning
    python -m experiments.continual_learning --benchmark rotated-mnist --seeds 3
    python -m experiments.continual_learning --benchmark split-cifar10 --scenario class --per-class 50

Teaches a network a sequence of tasks by every method and prints one table. Leaves in OUT: the accuracy matrix of each
run (a run that is there is read back; one that was stopped goes on from its last epoch), pictures of the matrices and
of the accuracies task by task, and a receipt.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from experiments.continual_learning.benchmarks import BENCHMARKS, Benchmark, Sizes
from experiments.continual_learning.methods import METHODS
from experiments.continual_learning.pictures import draw
from experiments.continual_learning.runs import Run, finished_run
from experiments.continual_learning.table import COLUMNS, readable
from experiments.reporting.receipts import write_receipt
from sinkhorn_rebasin.errors import DataError

console = Console()


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, test, show and keep."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*no `val_dataloader`.*")
    warnings.filterwarnings("ignore", message=".*treespec.*|.*Checkpoint directory.*")
    try:
        benchmark = built(options)
    except DataError as error:
        console.print(f"{options.benchmark} is skipped: {error}")
        return
    runs = [
        finished_run(
            benchmark,
            method,
            seed,
            settings(options, benchmark),
            options.out / "runs",
            per_class=options.per_class,
        )
        for method in options.methods
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    print_table(runs, options)
    draw(runs, options.out)
    path = write_receipt(
        options.out,
        experiment="continual_learning",
        config={**settings(options, benchmark), "methods": options.methods},
        metrics={
            "readme": readable(runs),
            "rows": [{"method": run.method, "seed": run.seed, **run.figures()} for run in runs],
            "matrices": [{"method": run.method, "seed": run.seed, "matrix": run.matrix} for run in runs],
        },
        seeds=range(options.seed, options.seed + options.seeds),
    )
    console.print(f"Pictures, accuracy matrices and the receipt {path.name} are in {options.out}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; their defaults finish in about a minute on two cores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", choices=list(BENCHMARKS), default="split-digits")
    parser.add_argument(
        "--scenario",
        choices=("task", "class"),
        default="task",
        help="of a split data set: whether a sample is shown the outputs of its own task alone, or all",
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each method")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--per-class", type=int, default=5, help="samples remembered of each class and task")
    parser.add_argument(
        "--tasks", type=int, default=None, help="the first so many; of rotated-mnist: how many"
    )
    parser.add_argument("--epochs", type=int, default=None, help="of each task")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--train-images", type=int, default=None, help="the first so many of the data set")
    parser.add_argument("--interpolation", choices=("nearest", "bilinear"), default="nearest")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    if options.out is None:
        options.out = Path("runs/continual_learning") / f"{options.benchmark}-{options.scenario}"
    return options


def built(options: argparse.Namespace) -> Benchmark:
    """The benchmark of the options.

    Raises:
        DataError: its data are not there.
    """
    sizes = Sizes(options.tasks, options.epochs, options.batch_size, options.train_images)
    return BENCHMARKS[options.benchmark](options.root, options.scenario, sizes, options.interpolation)


def settings(options: argparse.Namespace, benchmark: Benchmark) -> dict[str, Any]:
    """What a run depends on besides method and seed."""
    return {
        "benchmark": benchmark.name,
        "scenario": options.scenario,
        "tasks": len(benchmark.datamodules),
        "epochs": benchmark.epochs,
        "batch_size": benchmark.batch_size,
        "per_class": options.per_class,
        "train_images": len(benchmark.data.train_labels),
        "interpolation": options.interpolation,
        "model": benchmark.model,
        "arguments": benchmark.arguments,
    }


def print_table(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """One line a method."""
    scenario = options.scenario if options.benchmark.startswith("split") else "domain"
    table = Table(title=f"{options.benchmark}, {scenario}-incremental, {options.seeds} runs each")
    for column in ("method", *COLUMNS):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in readable(runs):
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    main()
