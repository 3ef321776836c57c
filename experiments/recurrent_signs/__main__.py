"""Do the signs of recurrent units lower the barrier between text networks?

    python -m experiments.recurrent_signs

Trains pairs of LSTM networks that predict the next character of Python's own sources, from different seeds, and
merges each pair with and without signs: by weight matching, by activation matching, and learned from the better of
the two. Which of the three a pair keeps, and at which step, is decided on held-out training windows; the barriers
shown are those of test files that nothing else has seen. Prints a table and leaves a figure and a receipt in OUT.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from experiments.data import ImageData, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.models.endpoints import EndpointConfig, load_or_train
from experiments.recurrent_signs.merging import Batch, Text, compared
from experiments.recurrent_signs.table_and_figure import draw, summarised
from experiments.reporting.receipts import write_receipt

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, merge, show and keep."""
    options = parse(arguments)
    data = load_source_text(options.context)
    kept = min(4 * options.windows, len(data.train_labels) // 4)
    data, held_out = data.hold_out(kept)
    if options.train is not None:
        data, _ = data.hold_out(len(data.train_labels) - options.train)
    text = Text(
        batches(data.train_images, data.train_labels, options.windows),
        batches(*held_out, options.windows),
        batches(data.test_images, data.test_labels, 4 * options.windows),
    )
    start, rows = time.perf_counter(), []
    for pair in range(options.pairs):
        networks = [network(2 * pair + one, data, options) for one in (0, 1)]
        rows += compared(pair, networks[0], networks[1], text, options)
    seconds = time.perf_counter() - start
    table = summarised(rows)
    print_table(table)
    draw(rows, options.out)
    config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    write_receipt(
        options.out,
        experiment="recurrent_signs",
        config=config,
        metrics={"rows": table, "all": rows, "seconds": seconds},
        seeds=list(range(2 * options.pairs)),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train", type=int, default=None, help="train on the first so many windows alone")
    parser.add_argument("--windows", type=int, default=256, help="windows that a pair is aligned with")
    parser.add_argument("--steps", type=int, default=200, help="steps of the learned alignment")
    parser.add_argument("--models", type=Path, default=Path("runs/endpoints"))
    parser.add_argument("--out", type=Path, default=Path("runs/recurrent_signs"))
    return parser.parse_args(arguments)


def network(seed: int, data: ImageData, options: argparse.Namespace) -> nn.Module:
    """A text network of this seed."""
    shape = {"vocabulary": VOCABULARY, "embedded": 16, "width": options.width, "depth": options.depth}
    config = EndpointConfig("lstm", seed, options.epochs, shape, learning_rate=5e-3, batch_size=64)
    return load_or_train(options.models, config, data)


def print_table(table: Sequence[dict[str, Any]]) -> None:
    """One line a pair."""
    shown = Table(*table[0], title="loss barrier on test files, nats a character")
    for line in table:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line.values()))
    console.print(shown)


def batches(tokens: Tensor, labels: Tensor, windows: int) -> list[Batch]:
    """Evenly spaced windows, in batches."""
    places = torch.linspace(0, len(tokens) - 1, min(windows, len(tokens))).long()
    return [(tokens[part], labels[part]) for part in places.split(64)]


if __name__ == "__main__":
    main()
