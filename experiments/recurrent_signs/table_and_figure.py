"""Shows barriers without and with signs: one line a pair, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin import (
    PathEvaluation,
)
from sinkhorn_rebasin.plots import Bar, plot_barriers, plot_paths

METHODS = ("weight matching", "activation matching", "learned")


def chosen(rows: Sequence[dict[str, Any]], pair: int, signs: bool) -> dict[str, Any]:
    """The row of a pair, without or with signs, whose barrier on held-out windows is the lowest."""
    own = [row for row in rows if row["pair"] == pair and row["signs"] is signs]
    return min(own, key=lambda row: float(row["held-out barrier"]))


def summarised(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a pair: barriers on test files without and with signs, for each method and the one chosen."""
    table = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        own = {(row["method"], row["signs"]): row["barrier"] for row in rows if row["pair"] == pair}
        line: dict[str, Any] = {"pair": pair + 1, "as they are": own["as they are", False]}
        for method in METHODS:
            line[method], line[f"{method}, signs"] = own[method, False], own[method, True]
        for signs, name in ((False, "chosen without signs"), (True, "chosen with signs")):
            line[name] = chosen(rows, pair, signs)["barrier"]
        table.append(line)
    return table


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Barriers of all methods by pair, and the chosen paths of the first pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.5), layout="constrained")
    bars = [
        Bar(f"pair {row['pair'] + 1}", row["method"] + (", signs" if row["signs"] else ""), row["barrier"])
        for row in rows
    ]
    plot_barriers(bars, left)
    left.set_ylabel("loss barrier (nats a character)")
    paths = {"as they are": rows[0]}
    paths |= {
        name: chosen(rows, 0, signs) for name, signs in (("without signs", False), ("with signs", True))
    }
    plot_paths({name: PathEvaluation.from_dict(row["path"]) for name, row in paths.items()}, ax=right)
    right.set_title("pair 1, chosen on held-out windows")
    figure.suptitle("LSTM networks that predict the next character, merged without and with signs")
    out.mkdir(parents=True, exist_ok=True)
    save_picture(figure, out / "recurrent_signs.png")
    plt.close(figure)
