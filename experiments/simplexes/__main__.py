"""Do three networks in one simplex make a better ensemble than three networks?

    python -m experiments.simplexes digits_mlp
    python -m experiments.simplexes mnist_mlp --cache runs/endpoints

Three networks of other seeds are the corners of a simplex, as they are or after alignment. Vertices are learned that
join them: the loss is low all over the simplex then. An ensemble is drawn from the simplex, and its probabilities are
averaged. Of several ways to train vertices and to draw, each simplex takes the one whose ensemble is best on held-out
images. Beside it stand the plain ensemble of the three, which runs fewer networks, and that of a simplex around each
of them. Finished triples are kept in OUT/finished. Leaves in OUT a picture and a receipt of all that is finished.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.data import ImageData
from experiments.models.family import Batches
from experiments.reporting.question import Question, Row, numbered
from experiments.simplexes.ensembles import measured
from experiments.simplexes.figures import draw, table
from experiments.simplexes.setting import Setting, load_setting


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each triple."""
    return numbered(setting.triples, options, lambda number: triple_row(setting, number, data, options.cache))


def triple_row(
    setting: Setting, number: int, data: tuple[ImageData, Batches, Batches], cache: Path
) -> dict[str, Any]:
    """Measure every ensemble of three networks."""
    images, held, tests = data
    networks = [setting.network(cache, images, 3 * number + each) for each in range(3)]
    return {
        "setting": setting.title,
        "triple": number,
        "rows": measured(networks, images, held, tests, setting, number),
    }


QUESTION = Question(
    *("simplexes", __doc__, "triples", load_setting, rows, table, draw),
    seeds=lambda triples: list(range(3 * len(triples))),
)


if __name__ == "__main__":
    QUESTION.answer()
