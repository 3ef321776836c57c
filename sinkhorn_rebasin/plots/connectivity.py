"""Paths between networks, and their barriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from matplotlib.axes import Axes

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots.style import (
    COLOURS,
    DASHES,
    HATCHES,
    MARKERS,
    axes_or_new,
    expect_some,
    nth,
    with_legend,
)


class Bar(NamedTuple):
    """Describe one bar of :func:`plot_barriers`.

    It is a figure of one method in one setting, with its spread over runs.
    """

    setting: str
    method: str
    value: float
    low: float | None = None
    high: float | None = None


def plot_paths(
    paths: Mapping[str, PathEvaluation],
    quantity: Literal["loss", "accuracy"] = "loss",
    ax: Axes | None = None,
) -> Axes:
    """Draw loss or accuracy along paths.

    They lead from the rebased target to the reference.

    Args:
        paths: name to evaluation; the legend gives each with its barrier.
        quantity: ``"loss"``, or ``"accuracy"`` in percent.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: no path, another quantity, or accuracies asked of a path that has none.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import torch
        >>> path = PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
        >>> plot_paths({"naive": path}).get_legend().get_texts()[0].get_text()
        'naive (barrier 3)'
        >>> plt.close()
    """
    if quantity not in ("loss", "accuracy"):
        raise DataError(f"Expected quantity 'loss' or 'accuracy' but got {quantity!r}.")
    expect_some(paths, "path")
    ax = axes_or_new(ax)
    for index, (name, path) in enumerate(paths.items()):
        if quantity == "loss":
            values, label = path.losses, f"{name} (barrier {path.barrier:.3g})"
        elif path.accuracies is None or path.accuracy_barrier is None:
            raise DataError(f"Expected the path {name!r} to have accuracies but it was evaluated without.")
        else:
            values, label = (
                100 * path.accuracies,
                f"{name} (barrier {100 * path.accuracy_barrier:.3g} points)",
            )
        ax.plot(
            path.positions.numpy(),
            values.numpy(),
            color=nth(COLOURS, index),
            marker=nth(MARKERS, index),
            linestyle=nth(DASHES, index),
            markersize=4,
            markevery=max(1, (len(path.positions) - 1) // 8),
            linewidth=1.8,
            label=label,
        )
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\ntarget (rebased)", "¼", "½\nmidpoint", "¾", "1\nreference"])
    ax.set_xlabel("position λ on the path")
    ax.set_ylabel("loss" if quantity == "loss" else "accuracy (%)")
    ax.grid(True, color="0.9", linewidth=0.8)
    return with_legend(ax, len(paths), below=quantity == "accuracy")


def plot_barriers(bars: Sequence[Bar], ax: Axes | None = None, *, log: bool = False) -> Axes:
    """Draw barriers as bars, grouped by setting.

    Each method has one color. Whiskers show the spread. Settings and methods keep the order in which they first
    appear; a missing combination stays empty.

    Args:
        bars: figures with their setting, method and, where known, lowest and highest run.
        ax: where to draw; None makes a new figure.
        log: logarithmic axis; a bar of zero then has no height and is marked "0".

    Raises:
        DataError: no bar, or two bars of one setting and method.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> ax = plot_barriers([Bar("width 32", "naive", 2.0, 1.8, 2.2), Bar("width 32", "matched", 0.3)])
        >>> len(ax.patches)
        2
        >>> plt.close()
    """
    expect_some(bars, "bar")
    settings = list(dict.fromkeys(bar.setting for bar in bars))
    methods = list(dict.fromkeys(bar.method for bar in bars))
    if len({(bar.setting, bar.method) for bar in bars}) < len(bars):
        raise DataError("Expected one bar for each setting and method but got two for the same pair.")
    ax = axes_or_new(ax)
    if log:
        ax.set_yscale("log")
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        own = [bar for bar in bars if bar.method == method]
        places = [settings.index(bar.setting) + (index - (len(methods) - 1) / 2) * width for bar in own]
        ax.bar(
            places,
            [bar.value for bar in own],
            0.92 * width,
            color=nth(COLOURS, index),
            hatch=nth(HATCHES, index),
            edgecolor="white",
            linewidth=0,
            label=method,
        )
        for place, bar in zip(places, own, strict=True):
            if bar.low is not None and bar.high is not None:
                ax.plot([place, place], [bar.low, bar.high], color="black", linewidth=1.2, marker="_")
            if log and bar.value <= 0:
                ax.annotate("0", (place, 0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    ax.set_xticks(range(len(settings)), settings)
    ax.set_ylabel("barrier")
    ax.grid(True, axis="y", color="0.9", linewidth=0.8)
    return with_legend(ax, len(methods))
