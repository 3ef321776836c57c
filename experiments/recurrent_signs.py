"""Do the signs of recurrent units lower the barrier between text networks?

    python -m experiments.recurrent_signs

Trains pairs of LSTM networks that predict the next character of Python's own sources, from different seeds, and
merges each pair with and without signs: by weight matching, by activation matching, and learned from the better of
the two. Which of the three a pair keeps, and at which step, is decided on held-out training windows; the barriers
shown are those of test files that nothing else has seen. Prints a table and leaves a figure and a receipt in OUT.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data import ImageData, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.endpoints import EndpointConfig, load_or_train
from experiments.receipts import write_receipt
from sinkhorn_rebasin import (
    Alignment,
    MidpointLoss,
    PathEvaluation,
    SinkhornRebasin,
    activation_matching,
    discover_rescaling,
    discover_symmetry,
    evaluate_path,
    weight_matching,
)
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.plots import Bar, plot_barriers, plot_paths
from sinkhorn_rebasin.training import RebasinModule

console = Console(width=max(Console().width, 120))
METHODS = ("weight matching", "activation matching", "learned")
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Text:
    """Windows to align with, to choose by, and to report."""

    train: list[Batch]
    held_out: list[Batch]
    test: list[Batch]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, merge, show and keep."""
    options = parse(arguments)
    data = load_source_text(options.context)
    kept = min(4 * options.windows, len(data.train_labels) // 4)
    data, held_out = data.hold_out(kept)
    if options.train is not None:
        data, _ = data.hold_out(len(data.train_labels) - options.train)
    text = Text(
        _batches(data.train_images, data.train_labels, options.windows),
        _batches(*held_out, options.windows),
        _batches(data.test_images, data.test_labels, 4 * options.windows),
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


def compared(
    pair: int, reference: nn.Module, target: nn.Module, text: Text, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each method, without and with signs, and one for the networks as they are."""
    inputs = text.train[0][0][:4]
    spec = discover_symmetry(reference, inputs)
    found = discover_rescaling(reference, spec, inputs)
    signed = RescalingSpec(found.groups, tuple(one for one in found.generators if one.kind == "sign"))
    rows = [_row(pair, "as they are", False, (target, reference), text)]
    for signs, rescaling in ((False, None), (True, signed)):
        matched = {
            "weight matching": weight_matching(reference, target, spec, rescaling=rescaling, restarts=5),
            "activation matching": activation_matching(
                reference, target, spec, data=text.train, rescaling=rescaling
            ),
        }
        tried = []
        for method, alignment in matched.items():
            moved = _moved(target, alignment)
            tried.append((_row(pair, method, signs, (moved, reference), text), alignment))
        best = min(tried, key=lambda one: one[0]["held-out barrier"])[1]
        learned = refined(reference, target, spec, best, text, options.steps)
        rows += [*(row for row, _ in tried), _row(pair, "learned", signs, learned, text)]
    return rows


def refined(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    start: Alignment,
    text: Text,
    steps: int,
) -> tuple[nn.Module, nn.Module]:
    """The pair after learning from a start: at the step, its start included, that is best on held-out windows."""
    rebasin = SinkhornRebasin(
        reference, target, text.train[0][0][:4], spec=spec, start=start, rescale=start.rescaling or False
    )
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), lr=0.1)
    optimizer, kept = module.configure_optimizers(), (float("inf"), target)
    for step in range(steps + 1):
        if step % 10 == 0:
            moved = rebasin.eval().to_model()
            barrier = evaluate_path((moved, reference), text.held_out, F.cross_entropy, points=3).barrier
            kept = min(kept, (barrier, moved), key=lambda one: one[0])
            rebasin.train()
        rebasin.temperature.fill_(0.5 * 0.2 ** (step / steps))
        optimizer.zero_grad()
        module.training_step(text.train[step % len(text.train)], step).backward()
        optimizer.step()
    return kept[1], reference


def _row(
    pair: int, method: str, signs: bool, networks: tuple[nn.Module, nn.Module], text: Text
) -> dict[str, Any]:
    held_out = evaluate_path(networks, text.held_out, F.cross_entropy, points=3)
    path = evaluate_path(networks, text.test, F.cross_entropy, points=11)
    row = {"pair": pair, "method": method, "signs": signs, "held-out barrier": held_out.barrier}
    return {**row, "barrier": path.barrier, "path": path.to_dict()}


def chosen(rows: Sequence[dict[str, Any]], pair: int, signs: bool) -> dict[str, Any]:
    """The row of a pair, without or with signs, whose barrier on held-out windows is the lowest."""
    own = [row for row in rows if row["pair"] == pair and row["signs"] is signs]
    return min(own, key=lambda row: float(row["held-out barrier"]))


def summarised(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a pair: barriers on test files without and with signs, for each method and the one chosen."""
    table = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        own = {(row["method"], row["signs"]): row["barrier"] for row in rows if row["pair"] == pair}
        line: dict[str, Any] = {"pair": pair + 1, "as they are": own["as they are", False]}
        for method in METHODS:
            line[method], line[f"{method}, signs"] = own[method, False], own[method, True]
        for signs, name in ((False, "chosen without signs"), (True, "chosen with signs")):
            line[name] = chosen(rows, pair, signs)["barrier"]
        table.append(line)
    return table


def print_table(table: Sequence[dict[str, Any]]) -> None:
    """One line a pair."""
    shown = Table(*table[0], title="loss barrier on test files, nats a character")
    for line in table:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line.values()))
    console.print(shown)


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Barriers of all methods by pair, and the chosen paths of the first pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.5), layout="constrained")
    bars = [
        Bar(f"pair {row['pair'] + 1}", row["method"] + (", signs" if row["signs"] else ""), row["barrier"])
        for row in rows
    ]
    plot_barriers(bars, left)
    left.set_ylabel("loss barrier (nats a character)")
    paths = {"as they are": rows[0]}
    paths |= {
        name: chosen(rows, 0, signs) for name, signs in (("without signs", False), ("with signs", True))
    }
    plot_paths({name: PathEvaluation.from_dict(row["path"]) for name, row in paths.items()}, ax=right)
    right.set_title("pair 1, chosen on held-out windows")
    figure.suptitle("LSTM networks that predict the next character, merged without and with signs")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "recurrent_signs.png", dpi=110)
    plt.close(figure)


def _moved(network: nn.Module, alignment: Alignment) -> nn.Module:
    twin = copy.deepcopy(network)
    twin.load_state_dict(alignment.apply(network))
    return twin


def _batches(tokens: Tensor, labels: Tensor, windows: int) -> list[Batch]:
    """Evenly spaced windows, in batches."""
    places = torch.linspace(0, len(tokens) - 1, min(windows, len(tokens))).long()
    return [(tokens[part], labels[part]) for part in places.split(64)]


if __name__ == "__main__":
    main()
