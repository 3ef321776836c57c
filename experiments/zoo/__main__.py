"""Discovery on whole families of networks: sound or not, groups, parameters covered, seconds, output change.

    python -m experiments.zoo --families own
    python -m experiments.zoo --families timm transformers
    python -m experiments.zoo --families random blocks
    python -m experiments.zoo.packages_environment && python -m experiments.zoo --families packages

Every network is built with random weights; all its groups are permuted at random in float64 and its outputs
compared. ``random`` are networks of random blocks in random order, ``blocks`` each kind of block alone. Needs
``pip install --no-deps torchvision timm`` and ``pip install transformers`` for those families.
``packages`` are networks of many packages, each in a process of an environment of its own with a time limit, also
checked on fresh inputs of another batch size and with other weights; finished networks are kept in ROWS.
Prints a table and leaves a picture and a receipt a family in OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from experiments.reporting.receipts import write_receipt
from experiments.zoo import (
    own_models,
    packages_family,
    random_models,
    timm_models,
    torchvision_models,
    transformers_models,
)
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

PACKAGES = "packages"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network of the families, show and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=[*FAMILIES, PACKAGES], default=list(FAMILIES))
    parser.add_argument("--only", nargs="+", default=None, help="names of networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--packages-python", type=Path, default=packages_family.packages_python())
    parser.add_argument("--rows", type=Path, default=Path("runs/zoo/packages_rows"), help="of packages, kept")
    parser.add_argument("--seconds", type=float, default=packages_family.SECONDS, help="for each of packages")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for family in options.families:
        _report(family, _rows(family, options), options)


def _rows(family: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of each network of a family."""
    if family == PACKAGES:
        runner = packages_family.Runner(options.packages_python, options.rows, options.seconds)
        networks = packages_family.chosen(options.only)
        return [runner.row(network) for network in track(networks, family, console=console)]
    entries = [e for e in FAMILIES[family]() if options.only is None or e.name in options.only]
    return [measure(entry) for entry in track(entries, family, console=console)]


def _report(family: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Show the figures of a family, and keep them."""
    figures = summary(rows)
    show(console, family, rows, figures)
    draw(family, rows, options.out / family)
    config = {"family": family, "only": options.only, "threads": options.threads}
    metrics = {
        "readme": readme_rows(family, figures),
        "exceptions": exception_rows(rows, most=3),
        "summary": figures,
        **(packages_family.tables(rows) if family == PACKAGES else {}),
        "rows": rows,
    }
    write_receipt(options.out / family, experiment="zoo", config=config, metrics=metrics, seeds=[0])


if __name__ == "__main__":
    main()
