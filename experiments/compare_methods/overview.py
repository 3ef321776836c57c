"""The tables over all settings, and the commands that make them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.compare_methods.table import across_settings, lead, summarise
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin.errors import DataError

Receipts = Mapping[str, Mapping[str, Any]]
PUBLISHED_PYTHON = ".venv-published/bin/python"


def read_receipts(folder: Path) -> tuple[Receipts, list[str]]:
    """The receipts of all settings below a folder by name, sorted by title, and what is wrong with the others."""
    found, problems = {}, []
    for path in sorted(folder.glob("*/receipt.json")):
        try:
            receipt = read_receipt(path)
            missing = {"title", "rows"} - set(receipt["metrics"])
        except (DataError, KeyError, TypeError) as error:
            problems.append(f"{path}: {error}")
            continue
        if missing:
            problems.append(
                f"{path}: Expected metrics with a title and rows but got none of {sorted(missing)}."
            )
            continue
        found[path.parent.name] = receipt
    return dict(sorted(found.items(), key=lambda item: item[1]["metrics"]["title"])), problems


def tables_across(receipts: Receipts) -> dict[str, list[dict[str, Any]]]:
    """Our best rows beside the best peers', and one table a figure with one column a setting."""
    tables = {r["metrics"]["title"]: summarise(r["metrics"]["rows"]) for r in receipts.values()}
    keys = {"barrier": "test_barrier", "repaired": "repaired_barrier", "seconds": "seconds"}
    return {"lead": lead(tables), **{name: across_settings(tables, key) for name, key in keys.items()}}


def commands_for(receipts: Receipts, root: Path) -> list[str]:
    """The commands that measure what is in the receipts, one for each number of pairs."""
    by_pairs: dict[int, list[str]] = {}
    for name, receipt in receipts.items():
        pairs = {tuple(row["seeds"]) for row in receipt["metrics"]["rows"]}
        by_pairs.setdefault(len(pairs), []).append(name)
    return [_command(names, pairs, root, receipts) for pairs, names in sorted(by_pairs.items())]


def _command(names: Sequence[str], pairs: int, root: Path, receipts: Receipts) -> str:
    parts = ["python", "-m", "experiments.compare_methods", *sorted(names)]
    methods = {row["method"] for name in names for row in receipts[name]["metrics"]["rows"]}
    if any(receipts[name]["config"].get("data") not in ("digits", "source_text") for name in names):
        parts += ["--root", root.as_posix()]
    parts += ["--pairs", str(pairs)]
    if any(method.startswith("published") for method in methods):
        parts += ["--published-python", PUBLISHED_PYTHON]
    return shlex.join(parts)
