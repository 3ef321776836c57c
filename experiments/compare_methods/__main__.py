"""Every method on the same pairs of networks, in one table.

    python -m experiments.compare_methods
    python -m experiments.compare_methods mnist_mlp_32 cifar10_cnn --root ../shared/data \\
        --published-python .venv-published/bin/python
    python -m experiments.compare_methods my_setting.yaml --cache my_networks --methods 'weight matching' ours

Settings are the files in `experiments/compare_methods/settings`, or one's own. The networks are trained once and kept
in CACHE; every finished row is kept in OUT/SETTING/finished, so that a run that was stopped goes on where it was
(`--again METHOD` measures a method anew). Leaves in OUT/SETTING the figures and a receipt, and in OUT the tables
over all settings measured there so far.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from experiments.compare_methods.evaluation import agreement, evaluate
from experiments.compare_methods.figures import draw_agreement, draw_paths
from experiments.compare_methods.methods import METHODS, runnable
from experiments.compare_methods.overview import commands_for, read_receipts, tables_across
from experiments.compare_methods.pair import Pair
from experiments.compare_methods.setting import Setting, known_settings, load_data, load_setting
from experiments.compare_methods.store import Store
from experiments.compare_methods.table import printable, readable, summarise
from experiments.data import ImageData
from experiments.models.endpoints import load_or_train
from experiments.reporting.receipts import command_line, write_receipt
from sinkhorn_rebasin import PathEvaluation
from sinkhorn_rebasin.errors import RebasinError

LARGEST_CHANGE = 1e-3
console = Console(width=max(Console().width, 160))


def main(arguments: Sequence[str] | None = None) -> None:
    """Every setting that is asked for, then the tables over all that are there."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    for name in options.settings:
        compare(name, load_setting(name), options)
    overview(options)
    console.print(f"took {time.monotonic() - began:.0f} s; figures and receipts are in {options.out}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; by default the digits, which takes one or two minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(known_settings())
    parser.add_argument("settings", nargs="*", default=["digits_mlp_32"], help=f"{known}, or files")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/endpoints"), help="folder of trained networks"
    )
    parser.add_argument("--methods", nargs="+", default=None, help="names in the table; all by default")
    parser.add_argument("--again", nargs="+", default=[], help="methods to measure anew")
    parser.add_argument("--pairs", type=int, default=None, help="at most so many of a setting's pairs")
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is finished")
    parser.add_argument("--published-python", type=Path, default=None, help="see experiments/published")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/compare_methods"))
    options = parser.parse_args(arguments)
    known = runnable(options.published_python)
    options.methods = options.methods or known
    for method in [*options.methods, *options.again]:
        if method not in known:
            parser.error(f"expected a method out of {', '.join(known)} but got {method!r}")
    return options


def compare(name: str, setting: Setting, options: argparse.Namespace) -> None:
    """One setting: the rows that are asked for, then table, figures and receipt of all that are finished."""
    folder = options.out / Path(name).stem
    data, unseen = load_data(setting, options.root).hold_out(setting.held_out)
    data = data.channels_last() if setting.recipe.bfloat16 else data
    store = Store(folder, setting, data, options.threads)
    left_out = dict(setting.without)
    if not options.tables:
        left_out |= measure_all(setting, options, store, data, unseen)
    pairs = setting.seeds[: options.pairs]
    found = [store.row(seeds, method) for seeds in pairs for method in METHODS if method not in left_out]
    rows = [row for row in found if row is not None]
    if not rows:
        console.print(f"{setting.title}: no method has a row; left out: {left_out}")
        return
    table = summarise(rows)
    console.print(printable(readable(table), f"{setting.title}, {len(pairs)} pairs"))
    draw(rows, store, folder, setting)
    write_receipt(
        folder,
        experiment="compare_methods",
        config={**asdict(setting), "threads": options.threads},
        metrics={
            "title": setting.title,
            "rows": rows,
            "table": table,
            "readme": readable(table),
            "without": left_out,
        },
        seeds=sorted({seed for pair_seeds in pairs for seed in pair_seeds}),
    )


def measure_all(
    setting: Setting,
    options: argparse.Namespace,
    store: Store,
    data: ImageData,
    unseen: tuple[Tensor, Tensor],
) -> dict[str, str]:
    """Every method that is asked for on every pair, unless its row is there; returns what was left out, and why."""
    left_out: dict[str, str] = {}
    for seeds in setting.seeds[: options.pairs]:
        networks = (load_or_train(options.cache, setting.endpoint(seed), data) for seed in seeds)
        held_out = unseen if setting.held_out else None
        architecture = setting.architecture(data)
        pair = Pair(architecture, *networks, data, seeds[0], held_out, options.published_python)
        for method in (name for name in METHODS if name in options.methods):
            if method in options.again:
                store.forget(method, seeds)
            if method in {**setting.without, **left_out} or store.row(seeds, method) is not None:
                continue
            console.print(f"{setting.title}, seeds {seeds[0]} and {seeds[1]}: {method}")
            failure = measure(pair, seeds, method, setting, store)
            if failure is not None:
                console.print(f"  left out: {failure}")
                left_out[method] = failure
    return left_out


def measure(pair: Pair, seeds: tuple[int, int], method: str, setting: Setting, store: Store) -> str | None:
    """Keep a method's row on one pair; return why there is none when it cannot align these networks."""
    try:
        outcome = METHODS[method].align(pair, setting)
        figures = evaluate(pair, outcome, setting.evaluation)
    except (RebasinError, RuntimeError) as error:
        return traceback.format_exception_only(error)[-1].strip()
    if figures["relative_change"] > LARGEST_CHANGE:
        return f"changes the function, by {figures['relative_change']:.0e} of its output"
    today = datetime.now(timezone.utc).date().isoformat()
    made = {"date": today, "command": command_line()}
    row = {"method": method, "seeds": list(seeds), **made, "seconds": outcome.seconds, **figures}
    store.keep(seeds, method, outcome, {**row, **outcome.notes})
    return None


def draw(rows: Sequence[Mapping[str, Any]], store: Store, folder: Path, setting: Setting) -> None:
    """Paths and agreement with weight matching, of the first pair."""
    seeds = setting.seeds[0]
    first = [row for row in rows if tuple(row["seeds"]) == tuple(seeds)]
    if not first:
        return
    title = f"{setting.title}, seeds {seeds[0]} and {seeds[1]}"
    for kind, name in (("test", "paths"), ("repaired", "paths_repair")):
        paths = {row["method"]: PathEvaluation.from_dict(row[f"{kind}_path"]) for row in first}
        draw_paths(paths, folder / f"{name}.png", title + (", with REPAIR" if kind == "repaired" else ""))
    matched = store.permutations(seeds, "weight matching")
    found = {row["method"]: store.permutations(seeds, row["method"]) for row in first}
    shares = {
        method: agreement(permutations, matched)
        for method, permutations in found.items()
        if permutations and matched and method != "weight matching"
    }
    if shares:
        draw_agreement(shares, folder / "agreement.png", title)


def overview(options: argparse.Namespace) -> None:
    """One column a setting: the tables over everything that was measured in OUT."""
    receipts, problems = read_receipts(options.out)
    for problem in problems:
        console.print(f"left out of the tables: {problem}")
    tables = tables_across(receipts)
    console.print(printable(tables["lead"], "our best row and the best peer's"))
    write_receipt(
        options.out,
        experiment="compare_methods",
        config={"settings": [receipt["config"]["title"] for receipt in receipts.values()]},
        metrics=tables,
        seeds=sorted({seed for receipt in receipts.values() for seed in receipt["seeds"]}),
        commands=commands_for(receipts, options.root),
    )


if __name__ == "__main__":
    main()
