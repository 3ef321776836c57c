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

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.data import ImageData
from experiments.geodesics.figures import draw, table
from experiments.geodesics.paths import measured
from experiments.geodesics.setting import Setting, load_setting
from experiments.models.family import Batches
from experiments.reporting.question import Question, Row, numbered


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each pair."""
    return numbered(setting.pairs, options, lambda number: pair_row(setting, number, data, options.cache))


def pair_row(
    setting: Setting, number: int, data: tuple[ImageData, Batches, Batches], cache: Path
) -> dict[str, Any]:
    """Join a pair of networks by every path after every matching."""
    images, held, tests = data
    reference, target = (setting.network(cache, images, seed) for seed in (2 * number, 2 * number + 1))
    rows = measured(reference, target, images, held, tests, setting)
    return {"setting": setting.title, "pair": number, "rows": rows}


QUESTION = Question(
    *("geodesics", __doc__, "pairs", load_setting, rows, table, draw),
    seeds=lambda pairs: list(range(2 * len(pairs))),
)


if __name__ == "__main__":
    QUESTION.answer()
