"""Rows of :mod:`experiments.compare_methods` that are one call of :func:`sinkhorn_rebasin.align`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import sinkhorn_rebasin
from experiments.compare_methods.setting import Recipe, load_setting
from experiments.reporting.json_files import read_json

METHODS = {"ours, every symmetry": "", "ours": ", symmetry='permutation'"}
"""Rows of the comparison, and what their call says besides."""


def compared(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the finished rows of a setting that are such a call, each in the form of the front door's."""
    setting = load_setting(name)
    finished = folder / Path(name).stem / "finished"
    found = [read_json(file)["row"] for file in sorted(finished.glob("*.json"))]
    before = {tuple(row["seeds"]): row for row in found if row["method"] == "naive"}
    return [
        {
            "name": Path(name).stem,
            "setting": setting.title,
            "seeds": row["seeds"],
            "command": row["command"],
            "call": f"align(A, B, train, validation{METHODS[row['method']]}{told(setting.recipe)})",
            "before": before[tuple(row["seeds"])]["test_barrier"],
            "barrier": row["test_barrier"],
            "seconds": row["seconds"],
            "start": row["start"],
            "function change": row["relative_change"],
            "notes": row.get("told", []),
            "paths": {"before": before[tuple(row["seeds"])]["test_path"], "after": row["test_path"]},
        }
        for row in found
        if row["method"] in METHODS
    ]


def told(recipe: Recipe) -> str:
    """Write what a setting's recipe changes of the defaults, as an argument.

    >>> told(Recipe(steps=1000, batch_size=128)), told(Recipe())
    (', recipe=Recipe(steps=1000)', '')
    """
    default = sinkhorn_rebasin.Recipe()
    # The schedule of a setting is its own, and is never tried against others.
    names = [each.name for each in fields(default) if each.name != "trials"]
    changed = {
        name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(default, name)
    }
    return f", recipe={sinkhorn_rebasin.Recipe(**changed)!r}" if changed else ""
