"""The tables: mean ± standard deviation over pairs, one row a method; and one column a setting over all of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from experiments.compare_methods.methods import names_of

FIGURES = {
    "test barrier": "test_barrier",
    "test AUC": "test_auc",
    "midpoint accuracy": "test_midpoint_accuracy",
    "train barrier": "train_barrier",
    "barrier, REPAIR": "repaired_barrier",
    "midpoint accuracy, REPAIR": "repaired_midpoint_accuracy",
    "seconds": "seconds",
}


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over pairs (None of a single one), for each method in the order of the rows.

    Example:
        >>> figures = dict.fromkeys([*FIGURES.values(), "endpoint_accuracy"], 1.0)
        >>> first = {"method": "naive", **figures, "relative_change": 0.0}
        >>> rows = [first, {**first, "test_barrier": 3.0}]
        >>> summarise(rows)[0]["test_barrier"]
        2.0
    """
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen = [row for row in rows if row["method"] == method]
        entry: dict[str, Any] = {"method": method, "pairs": len(chosen)}
        for key in FIGURES.values():
            values = [row[key] for row in chosen]
            entry[key] = statistics.mean(values)
            entry[f"{key}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        entry["relative_change"] = max(row["relative_change"] for row in chosen)
        entry["endpoint_accuracy"] = statistics.mean(row["endpoint_accuracy"] for row in chosen)
        table.append(entry)
    return table


def readable(table: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A summary as text."""
    return [
        {
            "method": entry["method"],
            **{title: _spread(entry, key) for title, key in FIGURES.items()},
            "change of the function": f"{entry['relative_change']:.0e}",
        }
        for entry in table
    ]


def across_settings(tables: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> list[dict[str, str]]:
    """One figure of every method (rows) in every setting (columns).

    Example:
        >>> across_settings({"MLP": [{"method": "naive", "seconds": 1.0, "seconds_sd": 0.5}]}, "seconds")
        [{'method': 'naive', 'MLP': '1.0 ± 0.5'}]
    """
    longest = sorted(tables.values(), key=len, reverse=True)  # the order of the fullest table
    methods = dict.fromkeys(entry["method"] for table in longest for entry in table)
    found = {(title, entry["method"]): entry for title, table in tables.items() for entry in table}
    return [
        {
            "method": method,
            **{
                title: _spread(found[title, method], key) if (title, method) in found else "–"
                for title in tables
            },
        }
        for method in methods
    ]


def lead(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The least of our rows beside the least of the peers' in every setting, as they are and with REPAIR.

    The accuracy is that of the networks on the test images the paths were measured on.

    "Sinkhorn" losses in this package are neither peers nor ours.
    """
    lines = []
    for title, table in tables.items():
        peers = [entry for entry in table if entry["method"] in names_of("peer")]
        line: dict[str, Any] = {
            "setting": title,
            "pairs": max(entry["pairs"] for entry in table),
            "peers": len(peers),
            "networks' accuracy": f"{100 * table[0]['endpoint_accuracy']:.1f} %",
        }
        for key, name in (("test_barrier", "barrier"), ("repaired_barrier", "barrier, REPAIR")):
            peer, ours = (_least(table, names_of(kind), key) for kind in ("peer", "ours"))
            if peer is None or ours is None:
                continue
            line[f"{name}: best peer"] = f"{peer[key]:.3f} ({peer['method']})"
            line[f"{name}: ours"] = f"{ours[key]:.3f} ({ours['method']})"
            line[f"{name}: ratio"] = f"{ours[key] / peer[key]:.2f}" if peer[key] > 0 else "–"
        lines.append(line)
    return lines


def printable(lines: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Lines of text as a table for the terminal."""
    table = Table(title=title)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("method", "setting") else "right", overflow="fold"
        )
    for line in lines:
        table.add_row(*(str(line.get(column, "–")) for column in columns))
    return table


def _least(table: Sequence[Mapping[str, Any]], methods: Sequence[str], key: str) -> Mapping[str, Any] | None:
    chosen = [entry for entry in table if entry["method"] in methods]
    return min(chosen, key=lambda entry: entry[key]) if chosen else None


def _spread(entry: Mapping[str, Any], key: str) -> str:
    digits = 1 if key == "seconds" else 3
    mean, deviation = entry[key], entry[f"{key}_sd"]
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
