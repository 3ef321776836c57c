"""Tables of single receipts: any one by its name, and a section for each setting of compared methods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.compare_methods.overview import commands_for, read_receipts
from experiments.compare_methods.table import summarise
from experiments.reporting.receipts import markdown_table, read_receipt
from sinkhorn_rebasin.errors import DataError

COLUMNS = {
    "barrier": "test_barrier",
    "accuracy halfway": "test_midpoint_accuracy",
    "barrier, REPAIR": "repaired_barrier",
    "seconds": "seconds",
}
MOST_COMMANDS = 8
"""More are not read, and stand in the receipt alone."""
DATA = Path("..") / "shared" / "data"
PICTURES = {"paths": "paths.png", "paths with REPAIR": "paths_repair.png", "agreement": "agreement.png"}


def result_table(results: Path, name: str, key: str, links: Path) -> str:
    """Return the table `metrics[key]` of a receipt, with its command.

    Raises:
        DataError: there is no such receipt, or no such table in it.
    """
    receipt = read_receipt(results / name / "receipt.json")
    rows = receipt["metrics"].get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"Expected metrics[{key!r}] of the receipt {name} to be a list of rows but got {type(rows).__name__}."
        )
    commands = receipt.get("commands") or [receipt["command"]]
    told = ", ".join(f"`{command}`" for command in commands[:MOST_COMMANDS])
    if len(commands) > MOST_COMMANDS:
        told = f"`{commands[0]}` and {len(commands) - 1} more commands, which the receipt holds"
    return f"{markdown_table(rows)}\n\n{told} ([receipt]({link(links, name, 'receipt.json')}))"


def setting_sections(results: Path, name: str, links: Path) -> str:
    """Return one section for each setting below a folder: table, picture, command.

    Raises:
        DataError: there is none.
    """
    receipts, problems = read_receipts(results / name)
    if not receipts or problems:
        raise DataError(
            f"Expected receipts of settings in {results / name} but got {problems or 'none at all'}."
        )
    return "\n\n".join(
        _section(results, f"{name}/{setting}", receipt, links) for setting, receipt in receipts.items()
    )


def link(links: Path, *parts: str) -> str:
    """Return the way from a page's folder to a file of the results.

    Example:
        >>> link(Path("experiments"), "zoo", "receipt.json")
        'results/zoo/receipt.json'
    """
    return Path(os.path.relpath(Path("experiments") / "results" / Path(*parts), links)).as_posix()


def _section(results: Path, name: str, receipt: Mapping[str, Any], links: Path) -> str:
    entries = summarise(receipt["metrics"]["rows"])
    rows = [
        {"method": entry["method"], **{title: _figure(entry, key) for title, key in COLUMNS.items()}}
        for entry in entries
    ]
    pictures = {title: file for title, file in PICTURES.items() if (results / name / file).is_file()}
    files = {"receipt": "receipt.json", **dict(list(pictures.items())[1:])}
    linked = ", ".join(f"[{title}]({link(links, name, file)})" for title, file in files.items())
    gathered = "--tables" in receipt["command"] or name.startswith("compare_methods/")
    command = commands_for({Path(name).name: receipt}, DATA)[0] if gathered else receipt["command"]
    accuracy, pairs = entries[0]["endpoint_accuracy"], entries[0]["pairs"]
    parts = [
        f"### {receipt['metrics']['title']}",
        f"{pairs} {'pair' if pairs == 1 else 'pairs'}; accuracy of the networks {100 * accuracy:.1f} %.",
        markdown_table(rows),
        *(f"![{title}]({link(links, name, file)})" for title, file in list(pictures.items())[:1]),
        f"`{command}` ({linked})",
    ]
    return "\n\n".join(parts)


def _figure(entry: Mapping[str, Any], key: str) -> str:
    """Write mean ± standard deviation over pairs, accuracies in percent."""
    mean, deviation = entry[key], entry[f"{key}_sd"]
    digits = 3 if key.endswith("barrier") else 1
    factor, unit = (100, " %") if key.endswith("accuracy") else (1, "")
    spread = "" if deviation is None else f" ± {factor * deviation:.{digits}f}"
    return f"{factor * mean:.{digits}f}{spread}{unit}"
