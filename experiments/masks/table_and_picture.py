"""The table and the picture of carried masks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

FLOOR, CEILING = "naive mask", "lottery ticket"


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a mask: means over pairs, and the share of the gap that it closes.

    The gap is that between the mean accuracies of the naive mask and of the lottery ticket.

    >>> rows = [
    ...     {"mask": name, "accuracy": value, "shared": 0.5, "seconds": 1.0}
    ...     for name, value in {"lottery ticket": 0.9, "naive mask": 0.8, "ours": 0.86}.items()
    ... ]
    >>> [line["share of the gap"] for line in table([{"rows": rows}])]
    ['1.00', '0.00', '0.60']
    """
    names = [row["mask"] for row in pairs[0]["rows"]]
    means = {name: statistics.fmean(values(pairs, name, "accuracy")) for name in names}
    gap = means[CEILING] - means[FLOOR]
    lines = []
    for name in names:
        accuracies = [100 * value for value in values(pairs, name, "accuracy")]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        share = (means[name] - means[FLOOR]) / gap if gap else float("nan")
        lines.append(
            {
                "mask": name,
                "test accuracy": f"{100 * means[name]:.2f}{spread}",
                "share of the gap": f"{share:.2f}",
                "shared with the receiver's mask": f"{statistics.fmean(values(pairs, name, 'shared')):.2f}",
                "seconds to align": f"{statistics.fmean(values(pairs, name, 'seconds')):.1f}",
                "pairs": len(accuracies),
            }
        )
    return lines


def values(pairs: Sequence[Mapping[str, Any]], name: str, key: str) -> list[float]:
    """Return one figure of one mask, pair by pair.

    >>> values([{"rows": [{"mask": "naive mask", "accuracy": 0.5}]}], "naive mask", "accuracy")
    [0.5]
    """
    return [float(row[key]) for pair in pairs for row in pair["rows"] if row["mask"] == name]


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the test accuracy after training under every mask, a dot a pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [row["mask"] for row in pairs[0]["rows"]]
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for name in names:
        found = [100 * value for value in values(pairs, name, "accuracy")]
        axes.plot(found, [name] * len(found), "o", color="0.6", markersize=4)
        axes.plot(statistics.fmean(found), name, "|", color=_color(name), markersize=18, markeredgewidth=3)
    for name in (FLOOR, CEILING):
        axes.axvline(100 * statistics.fmean(values(pairs, name, "accuracy")), color="0.8", zorder=0)
    axes.invert_yaxis()
    axes.set_title(str(pairs[0].get("setting", "")), fontsize=10)
    axes.set_xlabel("test accuracy after training under the mask, %")
    save_picture(figure, path)
    plt.close(figure)


def _color(name: str) -> str:
    return "tab:red" if name.startswith("ours") else "tab:blue"
