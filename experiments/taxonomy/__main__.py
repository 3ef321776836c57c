"""How many networks that look poorly connected are connected once their units are in order?

    python -m experiments.taxonomy digits_mlp

Two networks are trained in every cell of a grid of widths and batch sizes. Connectivity is that of a Bezier curve
which is trained for a few steps: the mean loss of both ends minus the loss where it differs most, so that a barrier
is negative. It is measured as networks are and after alignment, on training images, and on the segment too. Cells
below a threshold are poorly connected. Finished cells are kept in OUT/finished. Leaves in OUT a picture and a receipt
of all that is finished there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.receipts import markdown_table, write_receipt
from experiments.taxonomy.cells import cell_row
from experiments.taxonomy.figures import draw, shares, table
from experiments.taxonomy.setting import load_setting

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every cell that is not finished, then show and keep all that is."""
    options = parser_of(__doc__, "digits_mlp", "runs/taxonomy").parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting, finished = load_setting(options.setting), Finished(options.out)
    name, data = Path(options.setting).stem, setting.load(options.root)
    for width, size in itertools.product(setting.widths, setting.batch_sizes):
        finished.row(
            f"{name}-{width:04}-{size:04}",
            lambda width=width, size=size: cell_row(setting, width, size, data, options.cache),
        )
    cells = finished.all(f"{name}-*")
    lines, counted = table(cells), shares(cells, setting.poor)
    console.print(markdown_table(lines))
    console.print(counted)
    draw(cells, options.out / "taxonomy.png", setting.title)
    write_receipt(
        options.out,
        experiment="taxonomy",
        config={**asdict(setting), "threads": options.threads},
        metrics={"rows": lines, "shares": counted, "cells": cells},
        seeds=[0, 1],
    )


if __name__ == "__main__":
    main()
