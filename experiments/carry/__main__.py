"""How much of a fine-tune arrives at another base?

    python -m experiments.carry
    python -m experiments.carry cifar10_cnn cifar10_vit --root ../shared/data --pairs 1

Settings are the files in `experiments/carry/settings`, or one's own. Bases and fine-tunes are trained once and kept
in CACHE; every finished row is kept in OUT/SETTING/finished, so that a run that was stopped goes on where it was
(`--again METHOD` measures a method anew). Leaves in OUT/SETTING a picture and a receipt, and in OUT a table over all
settings.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.carry.bench import Bench
from experiments.carry.curves import curves, curves_path
from experiments.carry.pairs import load_pair
from experiments.carry.picture import draw
from experiments.carry.rows import WIDE_ROWS, Rows, row, row_path, rows_of
from experiments.carry.setting import Setting, known_settings, load_setting
from experiments.carry.table import lead, readable, with_shares
from experiments.carry.tasks import load_tasks
from experiments.reporting.json_files import read_json
from experiments.reporting.receipts import read_receipt, write_receipt

console = Console(width=max(Console().width, 160))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every setting that is asked for, then write the table over all that are there."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in options.settings:
        measure(name, load_setting(name), options)
    overview(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(known_settings())
    parser.add_argument("settings", nargs="*", default=["mnist_mlp"], help=f"{known}, or files")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/carry/endpoints"), help="of trained networks"
    )
    parser.add_argument("--methods", nargs="+", default=None, help="names in the table; all by default")
    parser.add_argument("--again", nargs="+", default=[], help="methods to measure anew")
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is finished")
    parser.add_argument("--pairs", type=int, default=None, help="at most so many of a setting's pairs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/carry"))
    return parser.parse_args(arguments)


def measure(name: str, setting: Setting, options: argparse.Namespace) -> None:
    """Measure one setting, row by row; then its table, picture and receipt of all rows that are finished."""
    folder = options.out / Path(name).stem
    pairs = setting.seeds[: options.pairs]
    named = rows_of(setting, setting.model in ("vit", "gpt"))
    if not options.tables:
        asked = {n: m for n, m in named.items() if options.methods is None or n in options.methods}
        measure_all(setting, folder, pairs, asked, options)
    found = []
    for seeds in pairs:
        for method in named:
            for wide in (False, True):
                path = row_path(folder / "wide" if wide else folder, setting, seeds, method)
                if path.is_file():
                    found.append({**read_json(path), "wide": wide})
    lines = curves_path(folder, pairs[0])
    report(found, read_json(lines) if lines.is_file() else {}, folder, setting, pairs)


def measure_all(
    setting: Setting,
    folder: Path,
    pairs: Sequence[tuple[int, int]],
    named: Rows,
    options: argparse.Namespace,
) -> None:
    """Measure every row that is asked for and not finished."""
    tasks = load_tasks(setting, options.root)
    widths = (False, True) if setting.wide is not None else (False,)
    wider = {name: make for name, make in named.items() if name in WIDE_ROWS}
    total = len(pairs) * (len(named) + (len(widths) - 1) * len(wider))
    with Progress(console=console) as progress:
        bar = progress.add_task(setting.title, total=total)
        for seeds in pairs:
            for wide in widths:
                pair = load_pair(options.cache, setting, tasks, seeds, wide)
                bench = Bench(setting, pair, *tasks, seeds[0])
                for method, make in (wider if wide else named).items():
                    where = folder / "wide" if wide else folder
                    if method in options.again:
                        row_path(where, setting, seeds, method).unlink(missing_ok=True)
                    progress.update(bar, description=f"{setting.title}, {seeds}: {method}")
                    row(where, bench, seeds, method, make)
                    progress.advance(bar)
    if options.methods is None:
        first = Bench(setting, load_pair(options.cache, setting, tasks, pairs[0]), *tasks, pairs[0][0])
        curves(folder, first, pairs[0])


def report(
    found: Sequence[dict[str, Any]],
    lines: dict[str, Any],
    folder: Path,
    setting: Setting,
    pairs: Sequence[tuple[int, int]],
) -> None:
    """Show the table, draw the picture and write the receipt."""
    rows = with_shares(found)
    table = readable(rows)
    shown = Table(title=setting.title)
    for column in table[0]:
        shown.add_column(column)
    for entry in table:
        shown.add_row(*(str(value) for value in entry.values()))
    console.print(shown)
    if lines:
        draw(lines, setting.title, folder / "scales.png")
    slim = [{key: value for key, value in each.items() if key != "tried"} for each in rows]
    complete = {"ours, no data", "sum of logits", "sum distilled", "as it is"} <= {e["method"] for e in rows}
    write_receipt(
        folder,
        experiment="carry",
        config=asdict(setting),
        metrics={
            "title": setting.title,
            "readme": table,
            "lead": [lead(rows, setting.title)] if complete else [],
            "rows": slim,
            "curves": lines,
        },
        seeds=sorted({seed for seeds in pairs for seed in seeds}),
    )


def overview(out: Path) -> None:
    """Write the table over all settings that were measured."""
    receipts = [read_receipt(path) for path in sorted(out.glob("*/receipt.json"))]
    table = [lead(receipt["metrics"]["rows"], receipt["config"]["title"]) for receipt in receipts]
    write_receipt(
        out,
        experiment="carry",
        config={"settings": [receipt["config"]["title"] for receipt in receipts]},
        metrics={"readme": table},
        seeds=sorted({seed for receipt in receipts for seed in receipt["seeds"]}),
        commands=sorted({receipt["command"] for receipt in receipts}),
    )


if __name__ == "__main__":
    main()
