"""Do three networks in one simplex make a better ensemble than three networks?

    python -m experiments.simplexes digits_mlp
    python -m experiments.simplexes mnist_mlp --cache runs/endpoints

Three networks of other seeds are the corners of a simplex, as they are or after alignment. Vertices are learned that
join them: the loss is low all over the simplex then. An ensemble is drawn from the simplex, and its probabilities are
averaged. The plain ensemble of the three stands beside; it runs fewer networks. Finished triples are kept in
OUT/finished. Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.data import ImageData
from experiments.models.family import Batches
from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.receipts import markdown_table, write_receipt
from experiments.simplexes.ensembles import measured
from experiments.simplexes.figures import draw, table
from experiments.simplexes.setting import Setting, load_setting

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every triple that is not finished, then show and keep all that is."""
    options = parser_of(__doc__, "digits_mlp", "runs/simplexes").parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting, finished = load_setting(options.setting), Finished(options.out)
    name, data = Path(options.setting).stem, setting.load(options.root)
    for number in range(setting.triples if options.pairs is None else options.pairs):
        finished.row(
            f"{name}-{number}", lambda number=number: triple_row(setting, number, data, options.cache)
        )
    triples = finished.all(f"{name}-*")
    lines = table(triples)
    console.print(markdown_table(lines))
    draw(triples, options.out / "simplexes.png")
    write_receipt(
        options.out,
        experiment="simplexes",
        config={**asdict(setting), "threads": options.threads},
        metrics={"rows": lines, "triples": triples},
        seeds=list(range(3 * len(triples))),
    )


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


if __name__ == "__main__":
    main()
