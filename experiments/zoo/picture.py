"""A picture of a family: what is covered of each network, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

# More networks than this are counted instead of named.
MOST_NAMED = 200
_COVERED = "parameters on a\npermutable axis (%)"


def draw(family: str, rows: Sequence[dict[str, Any]], out: Path) -> None:
    """A bar a network of the parameters covered (how many networks, of many), and seconds against parameters."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    run = sorted((row for row in rows if "change" in row), key=lambda row: -row["covered"])
    named = len(run) <= MOST_NAMED
    columns = max(1, -(-len(run) // 60)) if named else 1
    per_column = max(1, -(-len(run) // columns)) if named else 20
    height = max(4.5, 0.17 * per_column + 1.2)
    figure, axes = plt.subplots(
        *(1, columns + 1),
        figsize=(4.2 * columns + 6, height),
        layout="constrained",
        width_ratios=[*[1] * columns, 1.4],
    )
    if named:
        for column, axis in enumerate(axes[:-1]):
            _bars(axis, run[column * per_column : (column + 1) * per_column], per_column)
    else:
        axes[0].hist([100 * row["covered"] for row in run], bins=50, range=(0, 100))
        axes[0].set(xlabel=_COVERED, ylabel="networks", xlim=(0, 100))
        axes[0].grid(alpha=0.3)
    _seconds(axes[-1], run, slowest=5 if named else 0)
    sound = [row["sound"] for row in rows if "skipped" not in row]
    figure.suptitle(
        f"{family}: random permutations of all groups leave {sum(sound)} of {len(sound)} unchanged"
    )
    out.mkdir(parents=True, exist_ok=True)
    save_picture(figure, out / "zoo.png")
    plt.close(figure)


def _bars(axis: Any, part: Sequence[dict[str, Any]], length: int) -> None:
    colors = ["tab:blue" if row["covered"] >= 0.99 else "tab:orange" for row in part]
    axis.barh(range(len(part)), [100 * row["covered"] for row in part], color=colors)
    axis.set_yticks(range(len(part)), [row["network"] for row in part], fontsize=8)
    axis.set(xlabel=_COVERED, xlim=(0, 100), ylim=(length - 0.4, -0.6))
    axis.grid(axis="x", alpha=0.4)


def _seconds(axis: Any, run: Sequence[dict[str, Any]], slowest: int) -> None:
    axis.scatter([row["parameters"] for row in run], [row["seconds"] for row in run], s=16)
    named = sorted(run, key=lambda row: -row["seconds"])[:slowest]
    for number, row in enumerate(named, start=1):
        place = (row["parameters"], row["seconds"])
        axis.annotate(f"{number}", place, textcoords="offset points", xytext=(-4, 4), ha="right", fontsize=8)
    names = "\n".join(
        f"{number} {row['network'].rpartition('/')[2]}" for number, row in enumerate(named, start=1)
    )
    axis.set_title(names, fontsize=8, loc="left")
    axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="seconds of discovery")
    axis.grid(alpha=0.3)
