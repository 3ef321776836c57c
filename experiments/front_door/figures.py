"""The table and the picture of the front door, with the figures of the tables beside."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.compare_methods.methods import PUBLISHED
from experiments.reporting.pictures import save_picture
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin import PathEvaluation


def summarised(rows: Sequence[Mapping[str, Any]], tables: Path) -> list[dict[str, Any]]:
    """Return one line a setting and call: means over pairs beside those of the tables.

    The tables' figures are means over the same pairs, where these were measured, and else over all that were.
    """
    lines = []
    for name, call in dict.fromkeys((row["name"], row["call"]) for row in rows):
        pairs = [row for row in rows if (row["name"], row["call"]) == (name, call)]
        seeds = [row["seeds"] for row in pairs]
        barrier = statistics.mean(row["barrier"] for row in pairs)
        published = _in_tables(tables, name, PUBLISHED, seeds)
        lines.append(
            {
                "setting": pairs[0]["setting"],
                "call": f"`{call}`",
                "pairs": len(pairs),
                "as they are": _rounded(statistics.mean(row["before"] for row in pairs)),
                "aligned": _rounded(barrier),
                "ours in the tables": _rounded(_in_tables(tables, name, "ours", seeds)),
                "published": _rounded(published),
                "share of the published": f"{barrier / published:.2f}" if published else "–",
                "seconds": f"{statistics.mean(row['seconds'] for row in pairs):.0f}",
            }
        )
    return lines


def draw(rows: Sequence[Mapping[str, Any]], tables: Path, path: Path) -> None:
    """Draw the test loss along the path of each setting's first pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.8 * len(names) + 1.5, 2.7), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        first = next(row["seeds"] for row in rows if row["name"] == name)
        pair = [row for row in rows if row["name"] == name and row["seeds"] == first]
        lines = {"as they are": pair[0]["paths"]["before"]}
        published = [
            row for row in _rows(tables, name) if row["method"] == PUBLISHED and row["seeds"] == first
        ]
        lines |= {row["method"]: row["test_path"] for row in published}
        lines |= {
            _label(row["call"]): row["paths"]["after"] for row in pair if "symmetry=" not in row["call"]
        }
        for label, told in lines.items():
            path_told = PathEvaluation.from_dict(told)
            axis.plot(path_told.positions, path_told.losses, label=label, **_style(label))
        axis.set_title(pair[0]["setting"], fontsize=10)
        axis.set_xlabel("from B to A")
        axis.set_ylim(bottom=0)
    axes[0][0].set_ylabel("test loss")
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()), list(handles), loc="outside right center", frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)


def _label(call: str) -> str:
    """Shorten a call to what fits a legend: a budget is told, other recipes are not.

    >>> _label("align(A, B, train, recipe=Recipe(seconds=60))"), _label("align(A, B, train, recipe=Recipe(steps=9))")
    ('align(A, B, train, recipe=Recipe(seconds=60))', 'align(A, B, train)')
    """
    start, with_recipe, _ = call.partition(", recipe=")
    return f"{start})" if with_recipe and "seconds=" not in call else call


def _style(label: str) -> dict[str, Any]:
    """Draw what is not aligned in gray, peers in orange, and ours in black, budgets dashed."""
    if "align(" not in label:
        return {"color": "tab:orange" if label == PUBLISHED else "0.6"}
    return {"color": "black", "linestyle": "--" if "seconds=" in label else "-"}


def _in_tables(tables: Path, name: str, method: str, seeds: Sequence[Sequence[int]]) -> float | None:
    rows = [row for row in _rows(tables, name) if row["method"] == method]
    same = [row for row in rows if row["seeds"] in seeds]
    return statistics.mean(row["test_barrier"] for row in same or rows) if rows else None


def _rows(tables: Path, name: str) -> list[dict[str, Any]]:
    folder = tables / name
    rows: list[dict[str, Any]] = read_receipt(folder)["metrics"]["rows"] if folder.is_dir() else []
    return rows


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
