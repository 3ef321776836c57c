"""Is the geodesic of normalised networks lower than the segment, before and after matching?

    python -m experiments.geodesics digits_mlp
    python -m experiments.geodesics mnist_mlp --cache runs/endpoints

Two networks are joined before matching and after each of several matchings, by three paths: the segment, the segment
of the networks whose units are normalised, and the geodesic, along which every normalised unit moves on its sphere.
Errors are those of 21 points, on training and on test images. Only permutations are matched, so that scales are left
to normalisation. Finished pairs are kept in OUT/finished. Leaves in OUT a picture and a receipt of all that is
finished there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.data import ImageData
from experiments.geodesics.figures import draw, table
from experiments.geodesics.paths import measured
from experiments.geodesics.setting import Setting, load_setting
from experiments.models.family import Batches
from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.receipts import markdown_table, write_receipt

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every pair that is not finished, then show and keep all that is."""
    options = parser_of(__doc__, "digits_mlp", "runs/geodesics").parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting, finished = load_setting(options.setting), Finished(options.out)
    name, data = Path(options.setting).stem, setting.load(options.root)
    for number in range(setting.pairs if options.pairs is None else options.pairs):
        finished.row(f"{name}-{number}", lambda number=number: pair_row(setting, number, data, options.cache))
    pairs = finished.all(f"{name}-*")
    lines = table(pairs)
    console.print(markdown_table(lines))
    draw(pairs, options.out / "geodesics.png")
    write_receipt(
        options.out,
        experiment="geodesics",
        config={**asdict(setting), "threads": options.threads},
        metrics={"rows": lines, "pairs": pairs},
        seeds=list(range(2 * len(pairs))),
    )


def pair_row(
    setting: Setting, number: int, data: tuple[ImageData, Batches, Batches], cache: Path
) -> dict[str, Any]:
    """Join a pair of networks by every path after every matching."""
    images, held, tests = data
    reference, target = (setting.network(cache, images, seed) for seed in (2 * number, 2 * number + 1))
    rows = measured(reference, target, images, held, tests, setting)
    return {"setting": setting.title, "pair": number, "rows": rows}


if __name__ == "__main__":
    main()
