"""What does one call with defaults give? Networks of the tables, aligned as a newcomer would.

    python -m experiments.front_door
    python -m experiments.front_door mnist_mlp_32 mnist_mlp_64 --seconds 60 --root ../shared/data

Each pair of a setting of `experiments/compare_methods/settings` is aligned by `align(A, B, train)`, where `train` is
a DataLoader over the networks' training images and nothing else is said. With `--seconds` it is done within these
budgets instead; `--processor-time` counts them by the processor, where other work runs on the machine. Barriers are
those of test images, at the positions of the setting. The tables' figures stand beside. Finished pairs are kept in
OUT/finished, so that a run that was stopped goes on where it was. `--compared` adds the rows "ours, every symmetry"
and "ours" that `experiments.compare_methods` finished in a folder: the same call, with the setting's recipe. Leaves
in OUT a picture and a receipt of all that is finished.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import sinkhorn_rebasin
from experiments.compare_methods.setting import Setting, load_data, load_setting
from experiments.data import ImageData, InMemoryDataModule
from experiments.front_door.compared import compared
from experiments.front_door.figures import draw, summarised
from experiments.models.endpoints import load_or_train
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from sinkhorn_rebasin import Recipe, evaluate_path

SETTINGS = ("mnist_mlp_32", "mnist_mlp_64", "cifar10_mlp_128", "cifar10_cnn")
TABLES = Path(__file__).parents[1] / "results" / "compare_methods"
BATCH, TEST_BATCH = 250, 500
console = Console(width=max(Console().width, 140))


def main(arguments: Sequence[str] | None = None) -> None:
    """Align every pair that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.monotonic
    for name in () if options.show else options.settings:
        setting = load_setting(name)
        data, _ = load_data(setting, options.root).hold_out(setting.held_out)
        data = data.channels_last() if setting.recipe.bfloat16 else data
        for seeds in setting.seeds[: options.pairs]:
            for seconds in options.seconds or [None]:
                file = options.out / "finished" / f"{Path(name).stem}-{seeds[0]}-{seeds[1]}-{seconds}.json"
                if not file.is_file():
                    console.print(f"{setting.title}, seeds {seeds[0]} and {seeds[1]}: {call(seconds)}")
                    networks = [load_or_train(options.cache, setting.endpoint(seed), data) for seed in seeds]
                    with mock.patch.object(time, "monotonic", clock):
                        row = aligned(networks, data, setting, seconds)
                    row |= {"clock": "processor" if options.processor_time else "wall"}
                    write_json(
                        file, {"name": Path(name).stem, "setting": setting.title, "seeds": list(seeds), **row}
                    )
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="names, or files of one's own")
    parser.add_argument("--show", action="store_true", help="align nothing; show what is finished")
    parser.add_argument("--compared", type=Path, default=None, help="OUT of experiments.compare_methods")
    parser.add_argument("--seconds", nargs="*", type=int, default=[], help="budgets, instead of the defaults")
    parser.add_argument("--processor-time", action="store_true", help="count seconds of the processor alone")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--tables", type=Path, default=TABLES, help="receipts whose figures stand beside")
    parser.add_argument("--pairs", type=int, default=None, help="at most so many of a setting's pairs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/front_door"))
    return parser.parse_args(arguments)


def call(seconds: int | None) -> str:
    """Write the call that is measured.

    >>> call(60)
    'align(A, B, train, recipe=Recipe(seconds=60))'
    """
    return f"align(A, B, train{'' if seconds is None else f', recipe=Recipe(seconds={seconds})'})"


def aligned(
    networks: Sequence[nn.Module], data: ImageData, setting: Setting, seconds: int | None
) -> dict[str, Any]:
    """Align a pair as a newcomer would, and measure it on test images."""
    reference, target = networks
    train = InMemoryDataModule(data, batch_size=BATCH, validation_fraction=0.0).train_dataloader()
    if seconds is None:
        result = sinkhorn_rebasin.align(reference, target, train)
    else:
        result = sinkhorn_rebasin.align(reference, target, train, recipe=Recipe(seconds=seconds))
    evaluation = setting.evaluation
    images, labels = (part[: evaluation.test_images] for part in (data.test_images, data.test_labels))
    test = list(zip(images.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True))
    before = evaluate_path((target, reference), test, F.cross_entropy, points=evaluation.points)
    after = evaluate_path(result.rebasin.eval(), test, F.cross_entropy, points=evaluation.points)
    return {
        "command": command_line(),
        "call": call(seconds),
        "before": before.barrier,
        "barrier": after.barrier,
        "seconds": result.seconds,
        "steps": dict(result.steps),
        "start": result.start,
        "function change": result.function_change,
        "held out": result.held_out,
        "notes": list(result.notes),
        "paths": {"before": before.to_dict(), "after": after.to_dict()},
    }


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    rows = [read_json(file) for file in sorted((options.out / "finished").glob("*.json"))]
    if options.compared is not None:
        rows += [row for name in options.settings for row in compared(options.compared, name)]
    rows.sort(key=lambda row: (str(row["name"]), str(row["call"]), row["seeds"]))
    table = summarised(rows, options.tables)
    console.print(markdown_table(table))
    draw(rows, options.tables, options.out / "front_door.png")
    write_receipt(
        options.out,
        experiment="front_door",
        config={"threads": options.threads, "batch_size": BATCH},
        metrics={"rows": table, "all": rows},
        seeds=sorted({seed for row in rows for seed in row["seeds"]}),
        commands=list(dict.fromkeys([*(row["command"] for row in rows), command_line()])),
    )


if __name__ == "__main__":
    main()
