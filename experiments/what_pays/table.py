"""Tables of cells: means over groups of networks, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

TUNED = {"unlabelled": "distilled into", "labelled": "fine-tuned from"}
NO_DATA = "no data"
LEAD = {
    "matched": "matched midpoint",
    "learned": "learned",
    "tuned: a member": "{verb} a member",
    "tuned, twice the steps": "{verb} a member, twice the steps",
    "tuned: matched midpoint": "{verb} the matched midpoint",
    "tuned: learned midpoint": "{verb} the learned midpoint",
}
"""Columns of the lead table, and the ways that stand in them."""
BLIND = {"matched": "weight matching", "REPAIR on noise": "weight matching, REPAIR on noise"}
"""The same for those without data."""

Cells = Sequence[Mapping[str, Any]]


def values_of(cells: Cells, setting: str, budget: str, way: str) -> dict[int, float]:
    """Return one figure a group: the accuracy in percent, or the error where there is none.

    >>> cells = [{"setting": "a", "group": 0, "rows": [{"way": "learned", "budget": "50", "error": 0.5}]}]
    >>> values_of(cells, "a", "50", "learned")
    {0: 0.5}
    """
    names = {way, f"{way} together"} if way == "learned" else {way}
    return {
        each["group"]: 100 * row["accuracy"] if "accuracy" in row else row["error"]
        for each in cells
        if each["setting"] == setting
        for row in each["rows"]
        if row["way"] in names and row["budget"] == budget
    }


def lead_table(cells: Cells) -> list[dict[str, Any]]:
    """Return one line a setting and budget: networks, what is merged, and what is tuned from where.

    "gain" is by how much tuning from the better midpoint is ahead of tuning from a member with all its steps, group
    by group; in percent of accuracy, or as a lower error.
    """
    lines = []
    for setting in dict.fromkeys(each["setting"] for each in cells):
        for budget in budgets_of(cells, setting):
            groups = {
                each["group"] for each in cells if each["setting"] == setting and rows_of([each], budget)
            }
            line: dict[str, Any] = {"setting": setting, "budget": budget, "groups": len(groups)}
            for way in ("best member", "mean of outputs"):
                line[way] = spread(values_of(cells, setting, NO_DATA, way).values())
            if budget == NO_DATA:
                for column, way in BLIND.items():
                    line[column] = spread(values_of(cells, setting, NO_DATA, way).values())
            else:
                verb = TUNED[budget.rpartition(" ")[2]]
                for column, way in LEAD.items():
                    found = values_of(cells, setting, budget, way.format(verb=verb))
                    line[column] = spread(found.values())
                digits = ".1f" if of_accuracy(cells, setting) else ".2g"
                line["gain of a midpoint"] = spread(gains(cells, setting, budget).values(), "+", digits)
            lines.append(line)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    return [{name: line.get(name, "–") for name in columns} for line in lines]


def gains(cells: Cells, setting: str, budget: str) -> dict[int, float]:
    """Return by how much tuning from a midpoint is ahead of tuning from a member, group by group.

    The midpoint is the matched one, whose tuning takes as many steps.
    """
    verb = TUNED[budget.rpartition(" ")[2]]
    member = values_of(cells, setting, budget, f"{verb} a member")
    matched = values_of(cells, setting, budget, f"{verb} the matched midpoint")
    sign = 1 if of_accuracy(cells, setting) else -1
    return {group: sign * (matched[group] - member[group]) for group in member if group in matched}


def full_table(cells: Cells) -> list[dict[str, Any]]:
    """Return one line a setting and way, with a column for each budget."""
    lines = []
    for setting in dict.fromkeys(each["setting"] for each in cells):
        mine = [each for each in cells if each["setting"] == setting]
        figure = "test accuracy, %" if of_accuracy(cells, setting) else mine[0]["figure"]
        budgets = budgets_of(cells, setting)
        for way in dict.fromkeys(row["way"] for budget in budgets for row in rows_of(mine, budget)):
            values = {budget: spread(values_of(mine, setting, budget, way).values()) for budget in budgets}
            lines.append({"setting": setting, "figure": figure, "way": way, **values})
    columns = ("setting", "figure", "way", *budgets_of(cells))
    return [{name: line.get(name, "–") for name in columns} for line in lines]


def rows_of(cells: Cells, budget: str) -> list[Mapping[str, Any]]:
    """Return the rows of one budget.

    >>> rows_of([{"rows": [{"budget": "50", "way": "learned"}, {"budget": "200"}]}], "50")
    [{'budget': '50', 'way': 'learned'}]
    """
    return [row for each in cells for row in each["rows"] if row["budget"] == budget]


def budgets_of(cells: Cells, setting: str | None = None) -> list[str]:
    """Return the budgets of a setting, or of all, in order: none, then growing ones without labels, then with them.

    >>> rows = [{"budget": each} for each in ("all labelled", "no data", "200 unlabelled", "50 unlabelled")]
    >>> budgets_of([{"setting": "a", "rows": rows}], "a")
    ['no data', '50 unlabelled', '200 unlabelled', 'all labelled']
    """
    names = {row["budget"] for each in cells if setting in (None, each["setting"]) for row in each["rows"]}

    def place(name: str) -> tuple[bool, bool, float]:
        size = name.partition(" ")[0]
        return name != NO_DATA, name.endswith(" labelled"), float(size) if size.isdigit() else float("inf")

    return sorted(names, key=place)


def of_accuracy(cells: Cells, setting: str) -> bool:
    """Tell whether a setting is measured by accuracy."""
    return any("accuracy" in row for each in cells if each["setting"] == setting for row in each["rows"])


def spread(values: Any, sign: str = "", digits: str | None = None) -> str:
    """Return the mean over groups and the deviation between them.

    >>> spread([88.0, 90.0]), spread([0.1234]), spread([])
    ('89.0 ± 1.4', '0.123', '–')
    >>> spread([0.12, 0.1], "+", ".2g")
    '+0.11 ± 0.014'
    """
    values = list(values)
    if not values:
        return "–"
    if digits is None:
        digits = ".1f" if max(abs(value) for value in values) >= 10 else ".3g"
    after = f" ± {statistics.stdev(values):{digits}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}{digits}}{after}"
