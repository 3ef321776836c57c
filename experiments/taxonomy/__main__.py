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
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from experiments.reporting.question import Question, Row
from experiments.taxonomy.cells import cell_row
from experiments.taxonomy.figures import draw, shares, table
from experiments.taxonomy.setting import Setting, load_setting


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each cell."""

    def cell(width: int, size: int) -> Row:
        """Measure one cell, and say of which setting it is."""
        return {"setting": setting.title, **cell_row(setting, width, size, data, options.cache)}

    cells = itertools.product(setting.widths, setting.batch_sizes)
    return {f"{width:04}-{size:04}": partial(cell, width, size) for width, size in cells}


QUESTION = Question(
    *("taxonomy", __doc__, "cells", load_setting, rows, table),
    draw=lambda cells, path: draw(cells, path, cells[0]["setting"]),
    seeds=lambda cells: [0, 1],
    more=lambda cells, setting: {"shares": shares(cells, setting.poor)},
)


if __name__ == "__main__":
    QUESTION.answer()
