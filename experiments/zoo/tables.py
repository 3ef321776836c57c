"""Tables of a family: for the terminal and for RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Rows = Sequence[dict[str, Any]]


def show(console: Console, family: str, rows: Rows, figures: dict[str, Any]) -> None:
    """One line a network, then what was frozen in those that are not well covered."""
    table = Table("network", "parameters", "groups", "covered", "seconds", "change", "", title=family)
    for row in rows:
        table.add_row(row["network"], *_cells(row))
    console.print(table)
    frozen = Table("network", "covered", "elements", "frozen by", "for example", title="exceptions")
    for item in exception_rows(rows):
        frozen.add_row(*(str(item.get(name, "")) for name in EXCEPTION_COLUMNS))
    console.print(frozen)
    console.print(figures)


EXCEPTION_COLUMNS = ("network", "covered", "elements", "frozen by", "for example")


def by_package(rows: Rows) -> list[dict[str, Any]]:
    """One row a package, for networks that are called after theirs: how many are sound, and the median covered."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "skipped" not in row:
            found.setdefault(row["network"].partition("/")[0], []).append(row)
    return [
        {
            "package": name,
            "version": next((row["version"] for row in part if "version" in row), ""),
            "networks": len(part),
            "sound": sum(row["sound"] for row in part),
            "covered, median": f"{statistics.median(row.get('covered', 0.0) for row in part):.1%}",
        }
        for name, part in sorted(found.items())
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    if "change" not in row:
        return ["", "", "", "", "", (row.get("skipped") or row["error"])[:60]]
    note = "" if row.get("as a human", True) else "not as a human"
    note = note if row["sound"] else "not sound"
    return [
        f"{row['parameters']:,}",
        str(row["groups"]),
        f"{row['covered']:.1%}",
        f"{row['seconds']:.2f}",
        f"{row['change']:.0e}",
        note,
    ]


def exception_rows(rows: Rows, most: int | None = None) -> list[dict[str, Any]]:
    """One row a reason: the network, how much of it is covered, and what froze how many elements."""
    found = []
    for row in rows:
        for place, item in enumerate(row.get("exceptions", [])[:most]):
            found.append(
                {
                    "network": row["network"] if place == 0 else "",
                    "covered": f"{row['covered']:.1%}" if place == 0 else "",
                    "elements": item["elements"],
                    "frozen by": item["reason"],
                    "for example": item.get("example", ""),
                }
            )
    return found


def readme_rows(family: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The family as one line."""
    if figures["median_covered"] is None:
        return [{"family": family, "sound": f"0 of {figures['networks']}"}]
    row = {
        "family": family,
        "sound": f"{figures['sound']} of {figures['networks']}",
        "largest change": f"{figures['largest_change']:.0e}",
        "change of a wrong one, least": f"{figures['least_effect']:.0e}",
        "covered, median": f"{figures['median_covered']:.1%}",
        "covered to 99 %": figures["well_covered"],
        "seconds, median": f"{figures['median_seconds']:.2f}",
        "seconds, most": f"{figures['most_seconds']:.1f}",
    }
    if "compared" in figures:
        row["groups as a human's"] = f"{figures['as_a_human']} of {figures['compared']}"
    return [row]
