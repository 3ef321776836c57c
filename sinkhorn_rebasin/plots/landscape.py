"""The loss on a plane through networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sinkhorn_rebasin.landscape import PlaneEvaluation
from sinkhorn_rebasin.plots.style import MARKERS, axes_or_new, nth

MOST_NAMED = 6
"""More networks than these are taken for a trajectory."""


def plot_plane(plane: PlaneEvaluation, ax: Axes | None = None, *, levels: int = 14) -> Axes:
    """Draw the loss on a plane as contours.

    Levels are at equal factors. Networks are marked and named in the legend. Of more than a few, as of a
    :func:`trajectory_plane`, a line joins all in their order, and the first and the last are named. Both axes have
    one unit.

    Args:
        plane: from :func:`evaluate_plane`.
        ax: where to draw; None makes a new figure.
        levels: how many contours.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import torch
        >>> grid = torch.linspace(-1, 1, 5)
        >>> losses = 1 + grid[:, None] ** 2 + grid**2
        >>> plot_plane(PlaneEvaluation(grid, grid, losses, None, {"here": (0.0, 0.0)})).get_aspect()
        1.0
        >>> plt.close()
    """
    ax = axes_or_new(ax)
    losses = plane.losses.numpy().astype(float)
    finite = losses[np.isfinite(losses) & (losses > 0)]
    low, high = max(finite.min(), 1e-12), max(finite.max(), finite.min() * (1 + 1e-6))
    steps = np.geomspace(low, high, max(levels, 2))
    steps[0], steps[-1] = low * (1 - 1e-9), high * (1 + 1e-9)
    drawn = ax.contourf(
        plane.x.numpy(), plane.y.numpy(), np.clip(losses, low, high), steps, cmap="viridis_r", norm="log"
    )
    ax.contour(
        plane.x.numpy(), plane.y.numpy(), np.clip(losses, low, high), steps, colors="white", linewidths=0.4
    )
    bar = ax.figure.colorbar(drawn, ax=ax, ticks=steps[:: max(1, levels // 5)], format="%.3g")
    bar.set_label("loss")
    bar.ax.minorticks_off()
    named = plane.marks
    if len(plane.marks) > MOST_NAMED:
        places = list(plane.marks.values())
        ax.plot(*zip(*places, strict=True), color="white", linewidth=1.2, marker="o", markersize=3)
        ends = next(iter(plane.marks)), list(plane.marks)[-1]
        named = {name: plane.marks[name] for name in ends}
    for index, (name, (x, y)) in enumerate(named.items()):
        look: dict[str, Any] = {
            "color": "white",
            "markeredgecolor": "black",
            "markersize": 9,
            "linestyle": "none",
        }
        ax.plot(x, y, marker=nth(MARKERS, index), label=name, **look)
    ax.set_aspect("equal")
    ax.set_xlabel("distance in weight space")
    ax.set_ylabel("distance in weight space")
    if named:
        ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(named))
    return ax
