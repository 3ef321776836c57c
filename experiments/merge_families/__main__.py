"""Do recurrent networks and mixtures of experts merge on a real task?

    python -m experiments.merge_families
    python -m experiments.merge_families mixture --pairs 3

Trains pairs of networks that predict the next character of Python's own sources, from different seeds: LSTM networks,
as in `experiments.recurrent_signs`, and mixtures of experts. Ours learns permutations, signs, scales and the maps of
linear streams together on training windows, LSTM networks by `sr.align`, and keeps what is best on held-out ones; the
barriers are those of test files that nothing else has seen. Finished pairs are kept in OUT/finished. Leaves in OUT a
picture and a receipt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console

from experiments.data import ImageData, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.merge_families.families import expert_rows, recurrent_rows
from experiments.models.endpoints import EndpointConfig, load_or_train
from experiments.recurrent_signs.__main__ import batches
from experiments.recurrent_signs.merging import Text
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.pictures import save_picture
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from sinkhorn_rebasin import PathEvaluation
from sinkhorn_rebasin.plots import plot_paths

ROWS = {"lstm": recurrent_rows, "mixture": expert_rows}
console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge every pair that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for family in options.families:
        for pair in range(options.pairs):
            file = options.out / "finished" / f"{family}-{pair}.json"
            if file.is_file():
                continue
            data, text = windows(options)
            ends = [network(family, 2 * pair + end, data, options) for end in (0, 1)]
            rows = ROWS[family](pair, ends[0], ends[1], text, options.steps)
            console.print(markdown_table([{k: v for k, v in each.items() if k != "path"} for each in rows]))
            left_out = ("out", "models", "families")
            config = {key: value for key, value in vars(options).items() if key not in left_out}
            write_json(
                file, {"command": command_line(), "config": {"family": family, **config}, "rows": rows}
            )
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", default=list(ROWS))
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--train", type=int, default=None, help="train on the first so many windows alone")
    parser.add_argument("--windows", type=int, default=256, help="held-out windows")
    parser.add_argument("--aligned", type=int, default=8192, help="windows that a pair is aligned with")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, default=Path("runs/endpoints"))
    parser.add_argument("--out", type=Path, default=Path("runs/merge_families"))
    return parser.parse_args(arguments)


def windows(options: argparse.Namespace) -> tuple[ImageData, Text]:
    """Split the text as `experiments.recurrent_signs` does, whose networks these are too."""
    data = load_source_text(options.context)
    data, held_out = data.hold_out(min(4 * options.windows, len(data.train_labels) // 4))
    if options.train is not None:
        data, _ = data.hold_out(len(data.train_labels) - options.train)
    text = Text(
        batches(data.train_images, data.train_labels, options.aligned),
        batches(*held_out, options.windows),
        batches(data.test_images, data.test_labels, 2 * options.windows),
    )
    return data, text


def network(family: str, seed: int, data: ImageData, options: argparse.Namespace) -> torch.nn.Module:
    """A trained network of this family and seed."""
    shapes = {"embedded": 16, "width": options.width, "depth": 1}
    if family == "mixture":
        shapes = {"embedded": 16, "width": options.width // 2, "experts": 4, "inside": options.width // 4}
    config = EndpointConfig(
        family, seed, 1, {"vocabulary": VOCABULARY, **shapes}, learning_rate=5e-3, batch_size=64
    )
    return load_or_train(options.models, config, data)


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    files = sorted((options.out / "finished").glob("*.json"))
    found = [read_json(file) for file in files]
    rows = [each for finished in found for each in finished["rows"]]
    table = summarised(rows)
    console.print(markdown_table(table))
    draw(rows, options.out / "merge_families.png")
    pairs = sorted({each["pair"] for each in rows})
    write_receipt(
        options.out,
        experiment="merge_families",
        config={finished["config"]["family"]: finished["config"] for finished in found},
        metrics={"rows": table, "all": rows},
        seeds=[2 * pair + end for pair in pairs for end in (0, 1)],
        commands=list(dict.fromkeys(finished["command"] for finished in found)),
    )


def summarised(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a family and method: its mean barrier, and what part of another method's that is.

    Example:
        >>> barriers = {"weight matching": 2.0, "ours": 0.5}
        >>> rows = [{"family": "LSTM", "method": name, "barrier": barriers[name]} for name in barriers]
        >>> summarised(rows)[1]["of weight matching's"]
        '25 %'
    """
    means: dict[tuple[str, str], float] = {}
    for family, method in dict.fromkeys((each["family"], each["method"]) for each in rows):
        found = [r["barrier"] for r in rows if (r["family"], r["method"]) == (family, method)]
        means[family, method] = sum(found) / len(found)
    return [
        {
            "family": family,
            "method": method,
            "barrier": f"{barrier:.3f}",
            "of weight matching's": f"{100 * barrier / means[family, 'weight matching']:.0f} %",
        }
        for (family, method), barrier in means.items()
    ]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the first pair's paths of every family."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    families = list(dict.fromkeys(each["family"] for each in rows))
    figure, axes = plt.subplots(
        1, len(families), figsize=(6 * len(families), 4), layout="constrained", squeeze=False
    )
    for axis, family in zip(axes[0], families, strict=True):
        first = [each for each in rows if each["family"] == family and each["pair"] == 0]
        plot_paths({each["method"]: PathEvaluation.from_dict(each["path"]) for each in first}, ax=axis)
        axis.set_title(family)
    save_picture(figure, path)
    plt.close(figure)


if __name__ == "__main__":
    main()
