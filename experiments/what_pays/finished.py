"""Finished cells: each is a file in OUT/finished; receipts are made of them, and bring them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.compare_methods.setting import setting_of
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, read_receipt
from experiments.what_pays.setting import Setting
from sinkhorn_rebasin.errors import DataError

Cell = dict[str, Any]


def file_of(out: Path, name: str, setting: Setting, group: int, budget: str) -> Path:
    """Name the file of a cell, by what its figures depend on.

    >>> file_of(Path("runs"), "digits", Setting("digits", "digits"), 1, "50 labelled").name[:20]
    'digits-1-50_labelled'
    """
    facts = {**setting.facts(), "numbers": setting.seeds(group)}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return out / "finished" / f"{name}-{group}-{budget.replace(' ', '_')}-{digest}.json"


def skipped_file(out: Path, name: str) -> Path:
    """Name the file that tells why a setting cannot be measured."""
    return out / "finished" / f"{name}-skipped.json"


def write_cell(file: Path, name: str, setting: Setting, group: int, rows: Sequence[Any], figure: str) -> None:
    """Write down a cell that this run has measured, one of several that may fill the folder."""
    told = {"setting": setting.title, "figure": figure, "group": group, "rows": rows}
    write_json(file, {**told, "commands": [command_line()], "name": name, "config": asdict(setting)})


def finished_cells(out: Path) -> tuple[list[Cell], list[Cell]]:
    """Return all cells that are finished, and the settings that could not be measured."""
    everything = [read_json(file) for file in sorted((out / "finished").glob("*.json"))]
    return [each for each in everything if "rows" in each], [each for each in everything if "skipped" in each]


def restore(receipt: Path, out: Path) -> int:
    """Bring the cells of a receipt back as finished ones, so that a run goes on where the receipt ends.

    A cell that lies in the folder already stays as it is.

    Args:
        receipt: of this experiment, or the folder it lies in.
        out: the folder of a run.

    Returns:
        How many cells were brought back.

    Raises:
        DataError: a receipt of another experiment, or a cell of a setting that the receipt does not hold.
    """
    told = read_receipt(receipt)
    if told["experiment"] != "what_pays":
        raise DataError(f"Expected a receipt of what_pays but got one of {told['experiment']}: {receipt}.")
    names = {config["title"]: name for name, config in told["config"].items()}
    figures = {line["setting"]: line["figure"] for line in told["metrics"]["ways"]}
    brought = 0
    for each in told["metrics"]["cells"]:
        if each["setting"] not in names:
            raise DataError(
                f"Expected the setting of every cell in {receipt} but {each['setting']!r} is missing."
            )
        name = names[each["setting"]]
        config = told["config"][name]
        budget = each["rows"][0]["budget"]
        file = file_of(out, name, setting_of(Setting, config), each["group"], budget)
        if not file.is_file():
            cell = {"figure": figures[each["setting"]], **each, "name": name, "config": config}
            write_json(file, {**cell, "commands": commands_of(name, told["commands"])})
            brought += 1
    return brought


def commands_of(name: str, commands: Sequence[str]) -> list[str]:
    """Return the commands that name a setting, or all where none does.

    >>> commands_of("digits", ["python -m experiments.what_pays digits --groups 1", "python mnist_same"])
    ['python -m experiments.what_pays digits --groups 1']
    """
    return [each for each in commands if name in each.split()] or list(commands)
