"""The picture of one setting: the new task against the base task, along scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

STYLES = {"as it is": ("0.6", "-"), "weight matching": ("tab:blue", "--"), "ours, no data": ("black", "-")}


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], title: str, path: Path) -> None:
    """Draw accuracy on the new task against that on the base task, a mark at each scale.

    Args:
        curves: by method, points with ``scale``, ``new_accuracy`` and ``base_accuracy``.
        title: of the picture.
        path: of the file.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, points in curves.items():
        color, dashes = STYLES.get(name, (None, "-"))
        new = [100 * point["new_accuracy"] for point in points]
        base = [100 * point["base_accuracy"] for point in points]
        axes.plot(base, new, dashes, color=color, marker="o", markersize=4, label=name)
        axes.annotate(f"{points[-1]['scale']:g}", (base[-1], new[-1]), fontsize=8)
    axes.set_xlabel("accuracy on the base task, %")
    axes.set_ylabel("accuracy on the new task, %")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
