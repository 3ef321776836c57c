"""The pictures of a setting: the paths of all methods, and where they agree with weight matching."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments.compare_methods.methods import names_of
from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin import PathEvaluation
from sinkhorn_rebasin.plots import plot_paths

# One for each of our rows, in the order of the table.
OUR_DASHES = (":", "--", "-", (0, (1, 3)), (0, (5, 4)), (0, (3, 1, 1, 1, 1, 1)), "-.")


def draw_paths(paths: Mapping[str, PathEvaluation], path: Path, title: str) -> None:
    """Loss (on a logarithmic axis) and accuracy along the paths of all methods, ours in bold, side by side."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ours = names_of("ours")
    figure, axes = plt.subplots(1, 2, figsize=(14, 5.5), layout="constrained")
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        plot_paths(paths, quantity, axis)  # type: ignore[arg-type]
        axis.get_legend().remove()
        for index, (line, method) in enumerate(zip(axis.lines, paths, strict=True)):
            line.set_color("black" if method in ours else mpl.colormaps["tab20"](index % 20))
            line.set_linewidth(2.6 if method in ours else 1.4)
            if method in ours:
                line.set_linestyle(OUR_DASHES[ours.index(method)])
        # The axes as they were before room was made for a legend.
        axis.set_yscale("log" if quantity == "loss" else "linear")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        values = [value for line in axis.lines for value in line.get_ydata()]
        if quantity == "loss" and max(values) > 5 * min(values):
            # Of a wide range, labels at every digit run into each other.
            axis.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
        room = 0.04 * (max(values) - min(values))
        axis.set_ylim(
            (0.92 * min(values), 1.08 * max(values)) if quantity == "loss" else (min(values) - room, None)
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)


def draw_agreement(shares: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """A heat map: the share of each group's units (columns) that a method (rows) puts where weight matching does."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    methods, groups = list(shares), sorted(next(iter(shares.values())), key=_by_number)
    values = np.array([[shares[method][group] for group in groups] for method in methods])
    size = (max(6.0, 2.6 + 0.62 * len(groups)), max(4.2, 1.9 + 0.36 * len(methods)))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(groups)), groups, rotation=35, ha="right")
    axes.set_yticks(range(len(methods)), methods)
    for row, column in np.ndindex(*values.shape):
        shade = "white" if values[row, column] < 0.6 else "black"
        axes.text(
            column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=8
        )
    axes.set_xlabel("group")
    figure.colorbar(image, label="share of units placed as by weight matching")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts "2" before "10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
