"""How high is the barrier between transformers trained from different seeds, before and after alignment?

    python -m experiments.transformer_connectivity
    python -m experiments.transformer_connectivity --networks vit gpt --root ../shared/data

Trains three small vision transformers on CIFAR-10, or language models on the characters of Python's standard
library (kept in ``OUT/endpoints``), aligns all pairs of them by every method and prints one table. The residual
stream, the heads, the dimensions inside each head and the hidden units are all permuted. Leaves in OUT: figures of
the paths and of the barriers, the rebased and the merged networks of each pair as safetensors, and a receipt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.alignment import Outcome, Pair, Settings, matched, matched_from_identity, naive, ours
from experiments.data import ImageData, load_cifar10, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.endpoints import EndpointConfig, load_or_train
from experiments.linear_mode_connectivity import (
    draw_paths,
    figures,
    function_change,
    keep_networks,
    readable,
    summarise,
)
from experiments.models import Architecture
from experiments.receipts import write_receipt
from sinkhorn_rebasin import LinearPath, evaluate_path
from sinkhorn_rebasin.plots import Bar, plot_barriers

console = Console(width=max(Console().width, 120))
METHODS = {
    "naive": naive,
    "weight matching, from the identity": matched_from_identity,
    "weight matching": matched,
    "ours": ours,
}
EVALUATED = 2000


@dataclass(frozen=True)
class Experiment:
    """A network, how its endpoints are trained, and how they are aligned.

    The temperature begins low, where soft permutations are still close to those weight matching found: a transformer
    whose units are averaged is far from any trained one.
    """

    title: str
    architecture: Architecture
    epochs: int
    learning_rate: float
    batch_size: int
    settings: Settings

    def config(self, seed: int, epochs: int | None) -> EndpointConfig:
        """How the endpoint of a seed is trained."""
        name, arguments = self.architecture.name, self.architecture.arguments
        return EndpointConfig(
            name, seed, epochs or self.epochs, arguments, self.learning_rate, self.batch_size
        )


ALIGNMENT = Settings(
    steps=600,
    cycles=2,
    batch_size=128,
    learning_rate=0.03,
    temperatures=(0.1, 0.05),
    monitor_images=1000,
    monitor_points=5,
    evaluate_every=100,
)
EXPERIMENTS = {
    "vit": Experiment(
        "ViT 3x64 on CIFAR-10",
        Architecture("vit", (1, 3, 32, 32), {"size": 32, "patch": 8, "width": 64, "depth": 3, "heads": 4}),
        epochs=10,
        learning_rate=1e-3,
        batch_size=128,
        settings=ALIGNMENT,
    ),
    "gpt": Experiment(
        "GPT 2x64 on source text",
        Architecture(
            "gpt",
            (1, 64),
            {"vocabulary": VOCABULARY, "context": 64, "width": 64, "depth": 2, "heads": 4},
        ),
        epochs=4,
        learning_rate=2e-3,
        batch_size=64,
        # At higher temperatures it learns to average the target away, which the last norm makes up for.
        settings=replace(ALIGNMENT, steps=1200, cycles=3, batch_size=64, temperatures=(0.1, 0.01)),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, align, evaluate, show and keep."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        experiment = EXPERIMENTS[name]
        data = load_cifar10(options.root) if name == "vit" else load_source_text()
        for seeds in combinations(range(options.seeds), 2):
            rows += align_pair(options, experiment, train_pair(options, experiment, data, seeds), seeds)
    table = summarise(rows, "network")
    console.print(printable(readable(table, "network")))
    draw_barriers(rows, options.out)
    config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    write_receipt(
        options.out,
        experiment="transformer_connectivity",
        config={**config, "experiments": {name: asdict(EXPERIMENTS[name]) for name in options.networks}},
        metrics={"rows": rows, "table": table, "readme": readable(table, "network")},
        seeds=list(range(options.seeds)),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; by default all pairs of three vision transformers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(EXPERIMENTS), default=["vit"])
    parser.add_argument(
        "--root", type=Path, default=Path("../shared/data"), help="folder that holds CIFAR-10"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="networks of each kind; all their pairs are aligned"
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument(
        "--epochs", type=int, default=None, help="of the endpoints, instead of the experiment's"
    )
    parser.add_argument(
        "--steps", type=int, default=None, help="of our alignment, instead of the experiment's"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/transformer_connectivity"))
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("two seeds at least make a pair")
    return options


def train_pair(
    options: argparse.Namespace, experiment: Experiment, data: ImageData, seeds: tuple[int, int]
) -> Pair:
    """Two networks that differ in their seed alone."""
    folder = options.out / "endpoints"
    first, second = (load_or_train(folder, experiment.config(seed, options.epochs), data) for seed in seeds)
    return Pair(experiment.architecture, first, second, data, seeds[0])


def align_pair(
    options: argparse.Namespace, experiment: Experiment, pair: Pair, seeds: tuple[int, int]
) -> list[dict[str, Any]]:
    """Every method on one pair: its row of figures, its networks on disk, and the pair's picture."""
    settings = experiment.settings
    if options.steps is not None:
        settings = replace(settings, steps=options.steps)
    test = batches(pair.data.test_images, pair.data.test_labels)
    train = batches(pair.data.train_images[:EVALUATED], pair.data.train_labels[:EVALUATED])
    title = f"{experiment.title}, seeds {seeds[0]} and {seeds[1]}"
    rows, paths = [], {}
    for method in options.methods:
        console.print(f"{title}: {method}")
        outcome: Outcome = METHODS[method](pair, settings)
        path = LinearPath(pair.reference, outcome.rebased, pair.reference.state_dict())
        paths[method] = evaluate_path(path, test, points=11, progress=True)
        rows.append(
            {
                "network": experiment.title,
                "seeds": list(seeds),
                "method": method,
                **figures(paths[method], evaluate_path(path, train, points=11)),
                "relative_change": function_change(pair, outcome),
                "seconds": outcome.seconds,
                **outcome.notes,
            }
        )
        stem = f"{experiment.architecture.name}-seeds{seeds[0]}{seeds[1]}-{method.replace(',', '')}"
        keep_networks(options.out / "networks", stem, outcome, path)
    draw_paths(paths, options.out, title)
    return rows


def batches(inputs: Tensor, labels: Tensor, size: int = 500) -> list[tuple[Tensor, Tensor]]:
    """Parts small enough that what attention makes of them stays in the cache."""
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def printable(lines: Sequence[dict[str, Any]]) -> Table:
    """One line a network and method, mean ± standard deviation over pairs."""
    table = Table(*lines[0], title="transformers, all pairs")
    for line in lines:
        table.add_row(*line.values())
    return table


def draw_barriers(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """The test barrier of every method, with the range over pairs."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for entry in summarise(rows, "network"):
        key = (entry["network"], entry["method"])
        chosen = [row["test_barrier"] for row in rows if (row["network"], row["method"]) == key]
        bars.append(Bar(*key, entry["test_barrier"], min(chosen), max(chosen)))
    figure, axes = plt.subplots(figsize=(9, 5))
    plot_barriers(bars, axes)
    figure.suptitle("Test barrier of transformers: mean and range over pairs")
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "barriers.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
