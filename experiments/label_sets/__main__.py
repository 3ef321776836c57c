"""How well does one network do what two networks of different classes do?

    python -m experiments.label_sets cifar10_resnet8
    python -m experiments.label_sets digits_mlp --out runs/label_sets

Two networks of other seeds are trained on five classes each. Every method merges them into one network with the
outputs of both, and looks at the same unlabelled training images. The joint accuracy is that of the largest of all
ten outputs on test images of all classes. Options of every method are chosen by the joint accuracy on held-out
training images. The ensemble runs both networks and costs two. Finished pairs are kept in OUT/finished. Leaves in OUT
a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.label_sets.joint_accuracy import joint_accuracy
from experiments.label_sets.methods import Problem, methods
from experiments.label_sets.networks import trained_pair
from experiments.label_sets.setting import Setting, load_setting
from experiments.label_sets.table_and_picture import draw, table
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import markdown_table, write_receipt

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every pair that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    setting = load_setting(options.setting)
    data: ImageData | None = None
    for number in range(setting.pairs if options.pairs is None else options.pairs):
        file = options.out / "finished" / f"{options.setting}-{number}.json"
        if file.is_file():
            continue
        data = data or read_data(setting, options.root)
        rows = measured_pair(setting, number, data, options.cache, file.with_suffix(".part"))
        write_json(file, {"setting": setting.title, "pair": number, "rows": rows})
    keep(options, setting)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", nargs="?", default="digits_mlp")
    parser.add_argument("--pairs", type=int, default=None, help="those of the setting without it")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/label_sets"))
    return parser.parse_args(arguments)


def read_data(setting: Setting, root: Path) -> ImageData:
    """Read the setting's data set."""
    if setting.data == "digits":
        return load_digits()
    return load_mnist(root) if setting.data == "mnist" else load_cifar10(root)


def measured_pair(
    setting: Setting, number: int, data: ImageData, cache: Path, part: Path
) -> list[dict[str, Any]]:
    """Merge a pair of networks by every method, and measure each with the best of its options.

    Methods that are in the file `part` are not run again.
    """
    data, (held_images, held_labels) = data.hold_out(setting.held_out)
    networks, parts = trained_pair(number, setting.endpoint(), data, cache)
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(number))
    problem = Problem.of(networks, data.train_images[order[: setting.images]], setting)
    held = held_images[: setting.held_out_images], held_labels[: setting.held_out_images]
    tests = data.test_images[: setting.test_images], data.test_labels[: setting.test_images]

    rows: list[dict[str, Any]] = read_json(part) if part.is_file() else []
    known = {row["method"] for row in rows}

    def note(name: str, cost: float, network: Any, seconds: float | None, option: str = "") -> None:
        found = joint_accuracy(network, *tests, parts, bfloat16=setting.bfloat16)
        console.print(f"{name}: joint {100 * found['joint']:.1f} %, {option}")
        rows.append({"method": name, "option": option, "cost": cost, **found, "seconds": seconds})
        write_json(part, rows)

    if "both networks" not in known:
        note("both networks", 2.0, lambda x: torch.cat([network(x) for network in networks], 1), None)
    for name, cost, ways in methods(problem):
        if name in known:
            continue
        began, best, seen = time.process_time(), ("", -1.0, nn.Module()), 0
        for option, way in ways().items():
            network = way()
            value = joint_accuracy(network, *held, parts, bfloat16=setting.bfloat16)["joint"]
            best, seen = max(best, (option, value, network), key=lambda each: each[1]), seen + 1
        note(name, cost, best[2], (time.process_time() - began) / seen, best[0])
    return rows


def keep(options: argparse.Namespace, setting: Setting) -> None:
    """Show, draw and write down all that is finished."""
    files = sorted((options.out / "finished").glob(f"{options.setting}-*.json"))
    pairs = [read_json(file) for file in files]
    lines = table(pairs)
    console.print(markdown_table(lines))
    draw(pairs, options.out / "label_sets.png")
    write_receipt(
        options.out,
        experiment="label_sets",
        config={**asdict(setting), "threads": options.threads},
        metrics={"rows": lines, "pairs": pairs},
        seeds=list(range(2 * len(pairs))),
    )


if __name__ == "__main__":
    main()
