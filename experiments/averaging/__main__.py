"""Is the average of two random initialisations better than chance, once their units are in order?

    python -m experiments.averaging digits_mlp
    python -m experiments.averaging mnist_cnn

Two networks of other seeds train for a while. Permutations that are found after the last step are applied to both
networks as they were at every step before, down to the initialisation, and the average is measured on test images.
Ours learns permutations on the loss of the averaged initialisations, before any training; held-out images decide
which it keeps. Finished pairs are kept in OUT/finished. Leaves in OUT a picture and a receipt of all that is finished
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.averaging.methods import curves, ends, stages
from experiments.averaging.setting import Setting, load_setting
from experiments.averaging.table_and_picture import draw, table
from experiments.data import ImageData
from experiments.models.family import Batches, batches_of
from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.receipts import markdown_table, write_receipt

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every pair that is not finished, then show and keep all that is."""
    options = parser_of(__doc__, "digits_mlp", "runs/averaging").parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting, finished = load_setting(options.setting), Finished(options.out)
    name, data = Path(options.setting).stem, setting.load(options.root)
    for number in range(setting.pairs if options.pairs is None else options.pairs):
        finished.row(f"{name}-{number}", lambda number=number: pair_row(setting, number, data))
    pairs = finished.all(f"{name}-*")
    lines = table(pairs)
    console.print(markdown_table(lines))
    draw(pairs, options.out / "averaging.png")
    write_receipt(
        options.out,
        experiment="averaging",
        config={**asdict(setting), "threads": options.threads},
        metrics={"rows": lines, "pairs": pairs},
        seeds=list(range(2 * len(pairs))),
    )


def pair_row(setting: Setting, number: int, data: tuple[ImageData, Batches, Batches]) -> dict[str, Any]:
    """Train a pair of networks, and average them after every step by every method."""
    images, held, tests = data
    pair = stages(setting, images, 2 * number), stages(setting, images, 2 * number + 1)
    count = setting.match_images
    train = batches_of(images.train_images[:count], images.train_labels[:count])
    found = {"the networks": ends(pair, tests), **curves(pair, train, held, tests, setting, number)}
    return {"setting": setting.title, "pair": number, "steps": list(setting.steps), "curves": found}


if __name__ == "__main__":
    main()
