"""Discovery on whole families of networks: sound or not, groups, parameters covered, seconds, output change.

    python -m experiments.zoo --families own
    python -m experiments.zoo --families timm transformers
    python -m experiments.zoo --families random blocks

Every network is built with random weights; all its groups are permuted at random in float64 and its outputs
compared. ``random`` are networks of random blocks in random order, ``blocks`` each kind of block alone. Needs
``pip install --no-deps torchvision timm`` and ``pip install transformers`` for those families.
Prints a table and leaves a picture and a receipt a family in OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from experiments.receipts import write_receipt
from experiments.zoo import own_models, random_models, timm_models, torchvision_models, transformers_models
from experiments.zoo.entry import Entry
from experiments.zoo.measurement import measure, summary
from experiments.zoo.picture import draw
from experiments.zoo.tables import exception_rows, readme_rows, show

console = Console(width=max(Console().width, 140))
FAMILIES: dict[str, Callable[[], Iterator[Entry]]] = {
    "blocks": random_models.blocks,
    "own": own_models.entries,
    "random": random_models.entries,
    "timm": timm_models.entries,
    "torchvision": torchvision_models.entries,
    "transformers": transformers_models.entries,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network of the families, show and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--only", nargs="+", default=None, help="names of networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for family in options.families:
        chosen = [e for e in FAMILIES[family]() if options.only is None or e.name in options.only]
        rows = [measure(entry) for entry in track(chosen, family, console=console)]
        figures = summary(rows)
        show(console, family, rows, figures)
        draw(family, rows, options.out / family)
        config = {"family": family, "only": options.only, "threads": options.threads}
        metrics = {
            "readme": readme_rows(family, figures),
            "exceptions": exception_rows(rows, most=3),
            "summary": figures,
            "rows": rows,
        }
        write_receipt(options.out / family, experiment="zoo", config=config, metrics=metrics, seeds=[0])


if __name__ == "__main__":
    main()
