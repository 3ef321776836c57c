"""How high is the barrier between two networks trained from different seeds, before and after alignment?

    python -m experiments.linear_mode_connectivity
    python -m experiments.linear_mode_connectivity --data mnist --root ../shared/data --widths 32 64 128 512 \\
        --epochs 5 --pairs 3 --published-python .venv-published/bin/python

Trains pairs of fully connected networks (kept in ``OUT/endpoints``), aligns each pair by every method and prints
one table. Leaves in OUT: figures of the paths and of the barriers, the rebased and the merged networks of each
pair as safetensors, and a receipt.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

from experiments.alignment import METHODS, Outcome, Pair, Settings
from experiments.data import ImageData, load_digits, load_mnist
from experiments.endpoints import EndpointConfig, load_or_train
from experiments.models import Architecture
from experiments.receipts import write_receipt
from sinkhorn_rebasin import LinearPath, PathEvaluation, evaluate_path
from sinkhorn_rebasin.metrics import relative_change
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.plots import Bar, plot_barriers, plot_paths

console = Console()
wide = Console(width=max(console.width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, align, evaluate, show and keep."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(steps=options.steps, published_python=options.published_python)
    data = load_digits() if options.data == "digits" else load_mnist(options.root)
    rows: list[dict[str, Any]] = []
    for width in options.widths:
        for number in range(options.pairs):
            pair = train_pair(options, data, width, number)
            rows += align_pair(options, settings, pair, width, number)
    print_table(rows, options)
    draw_barriers(rows, options)
    config = {**vars(options), "settings": asdict(settings)}
    seeds = [seed for number in range(options.pairs) for seed in pair_seeds(options, number)]
    path = write_receipt(
        options.out,
        experiment="linear_mode_connectivity",
        config={key: str(value) if isinstance(value, Path) else value for key, value in config.items()},
        metrics={"rows": rows, "table": summarise(rows), "readme": readable(summarise(rows))},
        seeds=seeds,
    )
    console.print(f"Figures, networks and the receipt {path.name} are in {options.out}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; their defaults finish in under two minutes on two cores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument(
        "--root", type=Path, default=Path("../shared/data"), help="folder that holds MNIST/raw"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[32])
    parser.add_argument("--depth", type=int, default=3, help="hidden layers")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="first seed; each pair takes two")
    parser.add_argument("--epochs", type=int, default=None, help="of the endpoints: 60 on digits, 5 on MNIST")
    parser.add_argument("--steps", type=int, default=2000, help="of our alignment")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=None)
    parser.add_argument("--published-python", type=Path, default=None, help="see experiments/published")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/linear_mode_connectivity"))
    options = parser.parse_args(arguments)
    options.epochs = options.epochs or {"digits": 60, "mnist": 5}[options.data]
    if options.methods is None:
        options.methods = [
            m for m in METHODS if m not in ("published", "ours, 180 steps") or options.published_python
        ]
    if "published" in options.methods and options.published_python is None:
        parser.error(
            "the published method needs --published-python; experiments/published says how to make it"
        )
    return options


def pair_seeds(options: argparse.Namespace, number: int) -> tuple[int, int]:
    """Seeds of the reference and the target of one pair."""
    return options.seed + 2 * number, options.seed + 2 * number + 1


def train_pair(options: argparse.Namespace, data: ImageData, width: int, number: int) -> Pair:
    """Two networks that differ in their seed alone."""
    inputs = math.prod(data.image_shape)
    model = {"inputs": inputs, "widths": [width] * options.depth, "classes": data.classes}
    first, second = (
        load_or_train(options.out / "endpoints", EndpointConfig("mlp", seed, options.epochs, model), data)
        for seed in pair_seeds(options, number)
    )
    architecture = Architecture("mlp", (1, *data.image_shape), model)
    return Pair(architecture, first, second, data, pair_seeds(options, number)[0])


def align_pair(
    options: argparse.Namespace, settings: Settings, pair: Pair, width: int, number: int
) -> list[dict[str, Any]]:
    """Every method on one pair: its row of figures, its networks on disk, and the pair's picture."""
    test = [(pair.data.test_images, pair.data.test_labels)]
    train = [(pair.data.train_images[:10_000], pair.data.train_labels[:10_000])]
    rows, paths = [], {}
    for method in options.methods:
        console.print(f"width {width}, pair {number + 1} of {options.pairs}: {method}")
        outcome = METHODS[method](pair, settings)
        path = LinearPath(pair.reference, outcome.rebased, pair.reference.state_dict())
        paths[method] = evaluate_path(path, test)
        rows.append(
            {
                "width": width,
                "pair": number,
                "method": method,
                **figures(paths[method], evaluate_path(path, train)),
                "relative_change": function_change(pair, outcome),
                "seconds": outcome.seconds,
                **outcome.notes,
            }
        )
        keep_networks(options.out / "networks", f"width{width}-pair{number}-{method}", outcome, path)
    draw_paths(paths, options.out, f"{pair.data.name} MLP {options.depth}x{width}, pair {number + 1}")
    return rows


def figures(test: PathEvaluation, train: PathEvaluation) -> dict[str, Any]:
    """What the table and the receipt say of a path."""
    return {
        "test_barrier": float(test.barrier),
        "test_auc": float(test.auc),
        "train_barrier": float(train.barrier),
        "endpoint_accuracy": sum(test.endpoint_accuracies or (0.0, 0.0)) / 2,
        "midpoint_accuracy": float(test.midpoint_accuracy or 0.0),
        "path": test.to_dict(),
    }


def function_change(pair: Pair, outcome: Outcome) -> float:
    """Relative change of the target's output, in the type it was trained in."""
    images: Tensor = pair.data.test_images[:1000]
    with torch.no_grad():
        return float(relative_change(pair.target(images), run_at(pair.target, outcome.rebased, images)))


def keep_networks(folder: Path, name: str, outcome: Outcome, path: LinearPath) -> None:
    """The rebased target and the midpoint as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace(" ", "_")
    for kind, state in (("rebased", outcome.rebased), ("merged", path.state_at(0.5))):
        save_file(
            {k: v.contiguous().clone() for k, v in state.items()}, folder / f"{stem}-{kind}.safetensors"
        )


def summarise(rows: Sequence[dict[str, Any]], setting: str = "width") -> list[dict[str, Any]]:
    """Mean and standard deviation over pairs, for each setting and method."""
    table = []
    for value, method in dict.fromkeys((row[setting], row["method"]) for row in rows):
        chosen = [row for row in rows if (row[setting], row["method"]) == (value, method)]
        entry: dict[str, Any] = {setting: value, "method": method, "pairs": len(chosen)}
        for key in ("test_barrier", "test_auc", "train_barrier", "midpoint_accuracy", "seconds"):
            values = [row[key] for row in chosen]
            entry[key] = statistics.mean(values)
            entry[f"{key}_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        entry["relative_change"] = max(row["relative_change"] for row in chosen)
        table.append(entry)
    return table


def readable(table: Sequence[dict[str, Any]], setting: str = "width") -> list[dict[str, Any]]:
    """The table as the README shows it: mean ± standard deviation over pairs."""
    shown = {"test barrier": "test_barrier", "test AUC": "test_auc", "midpoint accuracy": "midpoint_accuracy"}
    return [
        {
            setting: entry[setting],
            "method": entry["method"],
            **{title: f"{entry[key]:.3f} ± {entry[f'{key}_sd']:.3f}" for title, key in shown.items()},
            "change of the function": f"{entry['relative_change']:.0e}",
            "seconds": f"{entry['seconds']:.1f}",
        }
        for entry in table
    ]


def print_table(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """One line a width and method, mean ± standard deviation over pairs."""
    table = Table(title=f"{options.data}, {options.depth} hidden layers, {options.pairs} pairs")
    for column in (
        "width",
        "method",
        "test barrier",
        "AUC",
        "train barrier",
        "midpoint accuracy",
        "change",
        "s",
    ):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for entry in summarise(rows):
        spread = [
            f"{entry[key]:.3f} ± {entry[f'{key}_sd']:.3f}"
            for key in ("test_barrier", "test_auc", "train_barrier", "midpoint_accuracy")
        ]
        change, seconds = f"{entry['relative_change']:.0e}", f"{entry['seconds']:.1f}"
        table.add_row(str(entry["width"]), entry["method"], *spread, change, seconds)
    wide.print(table)


def draw_paths(paths: dict[str, PathEvaluation], out: Path, title: str) -> None:
    """Loss and accuracy along the paths of all methods, side by side."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5))
    plot_paths(paths, "loss", axes[0])
    plot_paths(paths, "accuracy", axes[1])
    figure.suptitle(title)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"paths-{title.replace(' ', '_').replace(',', '')}.png", dpi=120)
    plt.close(figure)


def draw_barriers(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """The test barrier of every method but the naive one, which would dwarf the others, at every width."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    shown = [row for row in rows if row["method"] != "naive"] or rows
    for entry in summarise(shown):
        chosen = [
            r["test_barrier"] for r in rows if (r["width"], r["method"]) == (entry["width"], entry["method"])
        ]
        setting = f"width {entry['width']}"
        bars.append(Bar(setting, entry["method"], entry["test_barrier"], min(chosen), max(chosen)))
    figure, axes = plt.subplots(figsize=(9, 5))
    plot_barriers(bars, axes)
    figure.suptitle(f"Test barrier, {options.data}, {options.depth} hidden layers, {options.pairs} pairs")
    figure.tight_layout()
    figure.savefig(options.out / "barriers.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
