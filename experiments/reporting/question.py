"""One question to the networks of a setting: rows that are measured one by one, a table, a picture and a receipt."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.receipts import markdown_table, write_receipt

Row = dict[str, Any]
console = Console(width=max(Console().width, 120))


@dataclass(frozen=True)
class Question:
    """Say what an experiment measures and how it is shown.

    Attributes:
        experiment: the name of its folder, its picture and its receipt.
        description: for the command's help.
        kind: what its rows are of, as the receipt calls them, such as pairs.
        load: from a setting's name, or a file, to the setting, whose `load` takes the folder of the data sets.
        rows: from a setting, its data and the options to what measures each row, by its name.
        table: from rows to lines.
        draw: from rows and a path to a picture there.
        seeds: from rows to the seeds that were used.
        more: from rows and a setting to further figures.
    """

    experiment: str
    description: str | None
    kind: str
    load: Callable[[str], Any]
    rows: Callable[[Any, Any, argparse.Namespace], Mapping[str, Callable[[], Row]]]
    table: Callable[[list[Row]], list[dict[str, Any]]]
    draw: Callable[[list[Row], Path], None]
    seeds: Callable[[list[Row]], list[int]]
    more: Callable[[list[Row], Any], dict[str, Any]] = lambda rows, setting: {}

    def answer(self, arguments: Sequence[str] | None = None) -> None:
        """Measure every row that is not finished, then show and keep all that are."""
        options = parser_of(self.description, "digits_mlp", f"runs/{self.experiment}").parse_args(arguments)
        torch.set_num_threads(options.threads)
        setting, finished = self.load(options.setting), Finished(options.out)
        prefix = f"{Path(options.setting).stem}-{digest_of(setting)}"
        jobs = self.rows(setting, setting.load(options.root), options)
        with Progress(console=console) as progress:
            bar = progress.add_task(setting.title, total=len(jobs))
            for name, measure in jobs.items():
                finished.row(f"{prefix}-{name}", measure)
                progress.advance(bar)
        rows = finished.all(f"{prefix}-*")
        lines, more = self.table(rows), self.more(rows, setting)
        console.print(markdown_table(lines))
        for name, figure in more.items():
            console.print(f"{name}: {figure}")
        self.draw(rows, options.out / f"{self.experiment}.png")
        write_receipt(
            options.out,
            experiment=self.experiment,
            config={**asdict(setting), "threads": options.threads},
            metrics={"rows": lines, **more, self.kind: rows},
            seeds=self.seeds(rows),
        )


def digest_of(setting: Any) -> str:
    """Tell a setting from one with another value; rows of one are not those of the other.

    >>> from experiments.reporting.question import digest_of
    >>> from dataclasses import make_dataclass
    >>> kind = make_dataclass("Setting", ["steps"])
    >>> digest_of(kind(3)) == digest_of(kind(3)), digest_of(kind(3)) == digest_of(kind(4))
    (True, False)
    """
    facts = {name: value for name, value in asdict(setting).items() if name != "title"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def numbered(
    count: int, options: argparse.Namespace, row: Callable[[int], Row]
) -> dict[str, Callable[[], Row]]:
    """Return one row for each number, as many as were asked for.

    >>> from argparse import Namespace
    >>> rows = numbered(5, Namespace(pairs=2), lambda number: {"pair": number})
    >>> [measure() for measure in rows.values()]
    [{'pair': 0}, {'pair': 1}]
    """
    asked = range(count if options.pairs is None else options.pairs)
    return {f"{number}": lambda number=number: row(number) for number in asked}  # type: ignore[misc]
