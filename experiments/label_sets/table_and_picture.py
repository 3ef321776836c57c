"""The table and the picture of networks merged across classes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

FLOOR, CEILING = "weight matching", "both networks"


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a method: means over pairs, and the share of the way from weight matching to both networks.

    >>> accuracies = {"both networks": 0.8, "weight matching": 0.4, "ours": 0.7}
    >>> rows = [
    ...     {"method": name, "joint": value, "apart": 0.9, "cost": 1.0, "seconds": None}
    ...     for name, value in accuracies.items()
    ... ]
    >>> table([{"rows": rows}])[-1]["share of the way"]
    '0.75'
    """
    lines = []
    for name in [row["method"] for row in pairs[0]["rows"]]:
        rows = [_row(pair, name) for pair in pairs]
        shares = [share_of_way(pair, name) for pair in pairs]
        seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
        lines.append(
            {
                "method": name,
                "cost": f"{rows[0]['cost']:.1f}",
                "joint accuracy": _spread([100 * row["joint"] for row in rows]),
                "accuracy of each on its classes": f"{100 * _mean(row['apart'] for row in rows):.1f}",
                "share of the way": f"{_mean(shares):.2f}",
                "seconds": f"{_mean(seconds):.0f}" if seconds else "–",
            }
        )
    return lines


def share_of_way(pair: Mapping[str, Any], name: str) -> float:
    """Return how far a method's joint accuracy is from weight matching's to that of both networks."""
    low, high = (_row(pair, each)["joint"] for each in (FLOOR, CEILING))
    return float((_row(pair, name)["joint"] - low) / (high - low)) if high != low else float("nan")


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the joint accuracy of every method, a dot a pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [row["method"] for row in pairs[0]["rows"]]
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    means = [100 * _mean(_row(pair, name)["joint"] for pair in pairs) for name in names]
    axes.barh(names, means, height=0.7)
    for pair in pairs:
        axes.plot([100 * _row(pair, name)["joint"] for name in names], names, "k.", markersize=5)
    axes.invert_yaxis()
    axes.set_title(str(pairs[0].get("setting", "")), fontsize=10)
    axes.set_xlabel("joint test accuracy over all classes, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)


def _row(pair: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in pair["rows"] if row["method"] == name)
    return found


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _spread(values: Sequence[float]) -> str:
    mean = f"{_mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
