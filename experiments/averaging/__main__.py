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

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from experiments.averaging.methods import curves, ends, stages
from experiments.averaging.setting import Setting, load_setting
from experiments.averaging.table_and_picture import draw, table
from experiments.data import ImageData
from experiments.models.family import Batches, batches_of
from experiments.reporting.question import Question, Row, numbered


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each pair."""
    return numbered(setting.pairs, options, lambda number: pair_row(setting, number, data))


def pair_row(setting: Setting, number: int, data: tuple[ImageData, Batches, Batches]) -> dict[str, Any]:
    """Train a pair of networks, and average them after every step by every method."""
    images, held, tests = data
    pair = stages(setting, images, 2 * number), stages(setting, images, 2 * number + 1)
    count = setting.match_images
    train = batches_of(images.train_images[:count], images.train_labels[:count])
    found = {"the networks": ends(pair, tests), **curves(pair, train, held, tests, setting, number)}
    return {"setting": setting.title, "pair": number, "steps": list(setting.steps), "curves": found}


QUESTION = Question(
    *("averaging", __doc__, "pairs", load_setting, rows, table, draw),
    seeds=lambda pairs: list(range(2 * len(pairs))),
)


if __name__ == "__main__":
    QUESTION.answer()
