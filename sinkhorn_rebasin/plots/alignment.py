"""Permutations, and how they were learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots.style import (
    COLOURS,
    DASHES,
    axes_or_new,
    expect_some,
    make_room,
    nth,
    with_legend,
)


def plot_permutation(permutation: Tensor, ax: Axes | None = None) -> Axes:
    """Draw a permutation.

    Row i shows from which unit of the target the rebased unit i comes.

    Args:
        permutation: indices (n,), drawn as dots, or a soft matrix (n, n), drawn as a heat map from 0 to 1
            with its scale; above 128 units its entries of at least 0.05 are drawn as dots, which stay
            visible where cells of a heat map would be smaller than a pixel.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: neither a vector of indices nor a square matrix.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import torch
        >>> plot_permutation(torch.tensor([2, 0, 1])).get_xlabel()
        'unit of the target'
        >>> plt.close()
    """
    shape = tuple(permutation.shape)
    soft = permutation.is_floating_point()
    if len(shape) != (2 if soft else 1) or len(set(shape)) != 1:
        kind = "a soft permutation of shape (n, n)" if soft else "indices of shape (n,)"
        raise DataError(
            f"Expected {kind} but got shape {shape}; draw the blocks of a nested group one by one."
        )
    ax = axes_or_new(ax, size=(4.8, 4.2))
    values, units = permutation.detach().cpu(), shape[0]
    size = max(1.0, min(60.0, 8000.0 / units**1.5))
    if not soft:
        ax.scatter(values.numpy(), range(units), s=size, marker="s", color=COLOURS[0], linewidths=0)
    else:
        scale: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 1}
        weights = values.float().numpy()
        if units <= 128:
            drawn: Any = ax.imshow(weights, **scale)
        else:
            rows, columns = (weights >= 0.05).nonzero()
            drawn = ax.scatter(
                columns, rows, s=size, c=weights[rows, columns], marker="s", linewidths=0, **scale
            )
        ax.figure.colorbar(drawn, ax=ax, label="weight", fraction=0.046, pad=0.04)
    ax.set_aspect("equal")
    ax.set_xlim(-0.5, units - 0.5)
    ax.set_ylim(units - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("unit of the target")
    ax.set_ylabel("unit of the rebased target")
    return ax


def plot_history(history: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw training curves and the temperature.

    Losses are on the left axis, the temperature on a logarithmic right axis.

    Args:
        history: name to values, one per step. ``"temperature"`` goes to the right axis, ``"step"`` gives
            the steps (default 0, 1, ...), every other name is a curve on the left.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: no curve, or series of different lengths.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> ax = plot_history({"loss": [2.0, 1.0, 0.5], "temperature": [1.0, 0.3, 0.1]})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['loss', 'temperature (right)']
        >>> plt.close()
    """
    curves = {name: values for name, values in history.items() if name not in ("step", "temperature")}
    expect_some(curves, "curve")
    lengths = {name: len(values) for name, values in history.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"Expected series of one length but got {lengths}.")
    ax = axes_or_new(ax)
    steps = history.get("step", range(next(iter(lengths.values()))))
    lines = [
        ax.plot(steps, values, color=nth(COLOURS, i), linestyle=nth(DASHES, i), linewidth=1.8, label=name)[0]
        for i, (name, values) in enumerate(curves.items())
    ]
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    if "temperature" in history:
        right = ax.twinx()
        label = "temperature (right)"
        lines += right.plot(
            steps, history["temperature"], color="0.5", linestyle=":", linewidth=1.8, label=label
        )
        right.set_yscale("log")
        right.set_ylabel("temperature")
        right.spines["top"].set_visible(False)
        make_room(right, len(lines))
    ax.grid(True, color="0.9", linewidth=0.8)
    return with_legend(ax, len(lines), handles=lines)
