"""When does a merge pay, and when is it better to distil or to fine-tune one network?

    python -m experiments.what_pays
    python -m experiments.what_pays mnist_98_2 mnist_disjoint mnist_80_20 mnist_same --root ../shared/data
    /path/of/.venv-real/bin/python -m experiments.what_pays ani_1x spliceai

Settings are the files in `experiments/what_pays/settings`, or one's own. In each, groups of networks are merged by
every way, and by every way but a merge, at every budget of samples, without labels and with them. A budget
includes the samples that decide: a fifth of it, at least 30, at most 1,000; of fewer than 100 each is kept out of
one of five fits, and a last fit learns from all. Rates, starts and steps of all ways are chosen on these alone. What
is simpler is kept unless another is better by more than a standard error, and a start unless what was trained from it
is better by more than chance, as in `sr.align`. The test decides nothing but which member is called the best, the
strictest rival. All ways that take steps take equally many. Ensembles of packages need an environment of their own:
see `experiments.real_networks.environment`; where one is missing, the receipt says why.
Finished cells are kept in OUT/finished, so that a run that was stopped goes on where it was; `--restore RECEIPT`
brings back those of one, such as experiments/results/what_pays. Leaves in OUT a picture and a receipt of all that is
finished there.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from experiments.reporting.json_files import write_json
from experiments.reporting.receipts import markdown_table, write_receipt
from experiments.what_pays.budget import Budget
from experiments.what_pays.cells import cell
from experiments.what_pays.finished import file_of, finished_cells, restore, skipped_file, write_cell
from experiments.what_pays.merging import Merge
from experiments.what_pays.picture import draw
from experiments.what_pays.problem import Problem, image_data, image_problem
from experiments.what_pays.published import published_problem
from experiments.what_pays.setting import Setting, known_settings, load_setting
from experiments.what_pays.table import full_table, lead_table

console = Console(width=max(Console().width, 160))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every cell that is asked for and not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    if options.restore is not None:
        brought = restore(options.restore, options.out)
        console.print(f"{brought} finished cells of {options.restore}")
    for name in options.settings:
        if not options.tables:
            measure(Path(name).stem, load_setting(name), options)
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(known_settings())
    parser.add_argument("settings", nargs="*", default=["digits"], help=f"{known}, or files")
    parser.add_argument("--groups", type=int, default=None, help="at most so many of a setting's groups")
    parser.add_argument("--first-group", type=int, default=0, help="of a setting's groups that is measured")
    parser.add_argument(
        "--sizes", nargs="+", default=None, help="of budgets to measure now, such as 0 50 all"
    )
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument(
        "--restore", type=Path, default=None, help="a receipt whose cells are finished ones of this run too"
    )
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is finished")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/what_pays"))
    return parser.parse_args(arguments)


def measure(name: str, setting: Setting, options: argparse.Namespace) -> None:
    """Measure the cells of a setting that are not finished, or note why they cannot be."""
    last = setting.groups if options.groups is None else min(setting.groups, options.groups)
    groups = range(options.first_group, last)
    skipped = skipped_file(options.out, name)
    try:
        problems = problems_of(setting, options)
    except ImportError as error:
        console.print(f"{setting.title}: skipped, {error}")
        write_json(skipped, {"setting": setting.title, "skipped": str(error)})
        return
    skipped.unlink(missing_ok=True)
    sizes = options.sizes
    budgets = [each for each in setting.budgets() if sizes is None or each.named_size in sizes]
    with Progress(console=console) as progress:
        bar = progress.add_task(setting.title, total=len(groups) * len(budgets))
        for group in groups:
            files = {budget: file_of(options.out, name, setting, group, str(budget)) for budget in budgets}
            missing = {budget: file for budget, file in files.items() if not file.is_file()}
            progress.advance(bar, len(budgets) - len(missing))
            for budget, rows in cells_of(partial(problems, group), list(missing)):
                write_cell(missing[budget], name, setting, group, rows, rows[0].pop("figure"))
                progress.advance(bar)


def problems_of(setting: Setting, options: argparse.Namespace) -> Callable[[int], Problem]:
    """Return what makes the problem of a group.

    Raises:
        ImportError: the networks' package is not there.
    """
    if setting.data in ("ani_1x", "spliceai"):
        return published_problem(setting)
    data = None

    def problem(group: int) -> Problem:
        nonlocal data
        data = data or image_data(setting, options.root)
        return image_problem(setting, group, data, options.cache)

    return problem


def cells_of(make: Callable[[], Problem], budgets: Sequence[Budget]) -> Iterator[tuple[Budget, list[Any]]]:
    """Yield the rows of every budget; the networks are made when the first is needed."""
    problem: Problem | None = None
    merges: dict[str, Merge] = {}
    for budget in budgets:
        problem = problem or make()
        rows = cell(problem, budget, merges)
        rows[0]["figure"] = problem.task.figure
        yield budget, rows


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    found, skipped = finished_cells(options.out)
    lead = lead_table(found)
    console.print(markdown_table(lead))
    if found:
        draw(found, options.out / "what_pays.png")
    write_receipt(
        options.out,
        experiment="what_pays",
        config={each["name"]: each["config"] for each in found},
        metrics={
            "rows": lead,
            "ways": full_table(found),
            "skipped": skipped,
            "cells": [{key: each[key] for key in ("setting", "figure", "group", "rows")} for each in found],
        },
        seeds=sorted({each["group"] for each in found}),
        commands=sorted({command for each in found for command in each["commands"]}),
    )


if __name__ == "__main__":
    main()
