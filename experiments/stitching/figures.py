"""The table and the picture of stitching penalties, layer by layer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

GROUP, FULL = "scales and permutation", "full"


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a stitch: the mean penalty of every layer in points, their mean, and two shares of the full's.

    A full stitch may do better than the networks: its penalty is no measure then, and its error is.

    >>> rows = [{"stitch": "full", "penalties": [0.01, 0.03]}]
    >>> (line,) = table([{"rows": rows, "accuracy": 0.9}])
    >>> line["layer 1"], line["mean"], line["of the full"], line["error, of the full"], line["pairs"]
    ('1.00', '2.00', '1.00', '1.00', 1)
    """
    lines = []
    whole = statistics.fmean(pair["accuracy"] for pair in pairs)
    full = statistics.fmean(penalties(pairs, FULL))
    for row in pairs[0]["rows"]:
        means = penalties(pairs, row["stitch"])
        shown = {f"layer {number}": f"{100 * value:.2f}" for number, value in enumerate(means, 1)}
        mean = statistics.fmean(means)
        lines.append(
            {
                "stitch": row["stitch"],
                **shown,
                "mean": f"{100 * mean:.2f}",
                "of the full": f"{mean / full:.2f}" if full > 0 else "–",
                "error": f"{100 * (1 - whole + mean):.2f}",
                "error, of the full": f"{(1 - whole + mean) / (1 - whole + full):.2f}",
                "pairs": len(pairs),
            }
        )
    return lines


def penalties(pairs: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return the penalties of one stitch, layer by layer, as means over pairs.

    >>> penalties([{"rows": [{"stitch": "full", "penalties": [0.0, 0.5]}]}], "full")
    [0.0, 0.5]
    """
    columns = [row["penalties"] for pair in pairs for row in pair["rows"] if row["stitch"] == name]
    return [statistics.fmean(values) for values in zip(*columns, strict=True)]


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the penalty of every stitch over the layers."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for row in pairs[0]["rows"]:
        means = [100 * value for value in penalties(pairs, row["stitch"])]
        axes.plot(range(1, len(means) + 1), means, "o-", label=row["stitch"], markersize=4)
    axes.set_yscale("symlog", linthresh=1)
    axes.axhline(0, color="0.8", zorder=0)
    axes.set_xticks(range(1, len(pairs[0]["rows"][0]["penalties"]) + 1))
    axes.set_title(str(pairs[0].get("setting", "")), fontsize=10)
    axes.set_xlabel("layer after which the networks are stitched")
    axes.set_ylabel("penalty, points of test accuracy")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    save_picture(figure, path)
    plt.close(figure)
