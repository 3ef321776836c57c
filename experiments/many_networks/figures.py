"""The table and the picture of merges of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture


def table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a setting and method.

    >>> row = {"method": "one network", "loss": 0.5, "accuracy": 0.9}
    >>> table([{"setting": "MNIST", "networks": 4, "rows": [row]}])[0]["test loss"]
    '0.500'
    """
    return [
        {
            "setting": f"{each['networks']} of {each['setting']}",
            "method": row["method"],
            "test loss": f"{row['loss']:.3f}",
            "accuracy": f"{100 * row['accuracy']:.1f}",
            "loss after REPAIR": f"{row['repaired_loss']:.3f}" if "repaired_loss" in row else "–",
            "accuracy after REPAIR": f"{100 * row['repaired_accuracy']:.1f}"
            if "repaired_accuracy" in row
            else "–",
            "seconds": f"{row['seconds']:.0f}" if "seconds" in row else "–",
        }
        for each in found
        for row in each["rows"]
    ]


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the test accuracy of every mean, before and after REPAIR."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(found), figsize=(3.6 * len(found) + 1, 3.2), layout="constrained", squeeze=False
    )
    for axis, each in zip(axes[0], found, strict=True):
        names = [row["method"] for row in each["rows"]]
        axis.barh(names, [100 * row["accuracy"] for row in each["rows"]], height=0.7, label="mean")
        repaired = [row for row in each["rows"] if "repaired_accuracy" in row]
        axis.plot(
            [100 * row["repaired_accuracy"] for row in repaired],
            [row["method"] for row in repaired],
            "k|",
            markersize=10,
            label="after REPAIR",
        )
        axis.invert_yaxis()
        axis.set_title(f"{each['networks']} of {each['setting']}", fontsize=10)
        axis.set_xlabel("test accuracy, %")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)
