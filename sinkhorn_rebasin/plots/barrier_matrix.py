"""Barriers between every two of several networks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots.style import axes_or_new

MOST_NUMBERS = 10
"""Networks up to which the cells have numbers."""


def plot_barrier_matrix(
    barriers: Tensor,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    highest: float | None = None,
) -> Axes:
    """Draw the barriers between every two networks.

    It is a heat map from zero, with numbers in its cells up to ten networks. The diagonal stays empty.

    Args:
        barriers: (M, M), of :meth:`ManyAlignment.barriers`.
        names: of the networks; their numbers without it.
        ax: where to draw; None makes a new figure.
        highest: value of the darkest color, to compare several matrices; None: the largest barrier.

    Raises:
        DataError: the matrix is not square, or there is not one name a network.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import torch
        >>> ax = plot_barrier_matrix(torch.tensor([[0.0, 0.25], [0.25, 0.0]]), ["first", "second"])
        >>> [text.get_text() for text in ax.texts], ax.get_xticklabels()[1].get_text()
        (['0.250', '0.250'], 'second')
        >>> plt.close()
    """
    if barriers.ndim != 2 or barriers.shape[0] != barriers.shape[1]:
        raise DataError(
            f"Expected barriers between M networks of shape (M, M) but got shape {tuple(barriers.shape)}."
        )
    count = len(barriers)
    names = [str(number) for number in range(count)] if names is None else list(names)
    if len(names) != count:
        raise DataError(f"Expected one name a network, {count} of them, but got {len(names)}.")
    values = barriers.detach().cpu().double().clone()
    values.fill_diagonal_(float("nan"))
    shown = values[values.isfinite()]
    highest = float(shown.max()) if highest is None and len(shown) else (highest or 0.0)
    ax = axes_or_new(ax, size=(5.0, 4.2))
    drawn = ax.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=max(highest, 1e-12))
    ax.figure.colorbar(drawn, ax=ax, label="loss barrier", fraction=0.046, pad=0.04)
    if count <= MOST_NUMBERS:
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                if value == value:
                    color = "white" if value > 0.6 * highest else "black"
                    ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(count), names)
    ax.set_yticks(range(count), names)
    ax.set_xlabel("network")
    ax.set_ylabel("network")
    return ax
