"""Results in, matplotlib axes out; nothing is computed here.

Every function draws on the axes it is given, or on those of a new figure, and returns them; saving and
showing are the caller's. Colours are those of Okabe and Ito (2008), told apart in every common form of
colour blindness; markers, line styles and hatches repeat the distinction without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.errors import DataError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")


class Bar(NamedTuple):
    """One bar of :func:`plot_barriers`: a figure of one method in one setting, with its spread over runs."""

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
    """Draw loss or accuracy along paths from the rebased target to the reference.

    Args:
        paths: name to evaluation; the legend gives each with its barrier.
        quantity: ``"loss"``, or ``"accuracy"`` in percent.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: no path, another quantity, or accuracies asked of a path that has none.

    Example:
        >>> import torch
        >>> path = PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
        >>> plot_paths({"naive": path}).get_legend().get_texts()[0].get_text()
        'naive (barrier 3)'
        >>> plt.close()
    """
    if quantity not in ("loss", "accuracy"):
        raise DataError(f"Expected quantity 'loss' or 'accuracy' but got {quantity!r}.")
    _expect_some(paths, "path")
    ax = _axes(ax)
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
            color=_nth(COLOURS, index),
            marker=_nth(MARKERS, index),
            linestyle=_nth(DASHES, index),
            markersize=4,
            markevery=max(1, (len(path.positions) - 1) // 8),
            linewidth=1.8,
            label=label,
        )
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\ntarget (rebased)", "¼", "½\nmidpoint", "¾", "1\nreference"])
    ax.set_xlabel("position λ on the path")
    ax.set_ylabel("loss" if quantity == "loss" else "accuracy (%)")
    ax.grid(True, color="0.9", linewidth=0.8)
    return _with_legend(ax, len(paths), below=quantity == "accuracy")


def plot_barriers(bars: Sequence[Bar], ax: Axes | None = None, *, log: bool = False) -> Axes:
    """Draw barriers as bars, grouped by setting, one colour for each method, with whiskers for the spread.

    Settings and methods keep the order in which they first appear; a missing combination stays empty.

    Args:
        bars: figures with their setting, method and, where known, lowest and highest run.
        ax: where to draw; None makes a new figure.
        log: logarithmic axis; a bar of zero then has no height and is marked "0".

    Raises:
        DataError: no bar, or two bars of one setting and method.

    Example:
        >>> ax = plot_barriers([Bar("width 32", "naive", 2.0, 1.8, 2.2), Bar("width 32", "matched", 0.3)])
        >>> len(ax.patches)
        2
        >>> plt.close()
    """
    _expect_some(bars, "bar")
    settings = list(dict.fromkeys(bar.setting for bar in bars))
    methods = list(dict.fromkeys(bar.method for bar in bars))
    if len({(bar.setting, bar.method) for bar in bars}) < len(bars):
        raise DataError("Expected one bar for each setting and method but got two for the same pair.")
    ax = _axes(ax)
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
            color=_nth(COLOURS, index),
            hatch=_nth(HATCHES, index),
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
    return _with_legend(ax, len(methods))


def plot_permutation(permutation: Tensor, ax: Axes | None = None) -> Axes:
    """Draw a permutation: row i shows from which unit of the target the rebased unit i comes.

    Args:
        permutation: indices (n,), drawn as dots, or a soft matrix (n, n), drawn as a heat map from 0 to 1
            with its scale; above 128 units its entries of at least 0.05 are drawn as dots, which stay
            visible where cells of a heat map would be smaller than a pixel.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: neither a vector of indices nor a square matrix.

    Example:
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
    ax = _axes(ax, size=(4.8, 4.2))
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
    """Draw training curves: losses on the left axis, the temperature on a logarithmic right axis.

    Args:
        history: name to values, one per step. ``"temperature"`` goes to the right axis, ``"step"`` gives
            the steps (default 0, 1, ...), every other name is a curve on the left.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: no curve, or series of different lengths.

    Example:
        >>> ax = plot_history({"loss": [2.0, 1.0, 0.5], "temperature": [1.0, 0.3, 0.1]})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['loss', 'temperature (right)']
        >>> plt.close()
    """
    curves = {name: values for name, values in history.items() if name not in ("step", "temperature")}
    _expect_some(curves, "curve")
    lengths = {name: len(values) for name, values in history.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"Expected series of one length but got {lengths}.")
    ax = _axes(ax)
    steps = history.get("step", range(next(iter(lengths.values()))))
    lines = [
        ax.plot(steps, values, color=_nth(COLOURS, i), linestyle=_nth(DASHES, i), linewidth=1.8, label=name)[
            0
        ]
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
        _make_room(right, len(lines))
    ax.grid(True, color="0.9", linewidth=0.8)
    return _with_legend(ax, len(lines), handles=lines)


def _axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _with_legend(ax: Axes, entries: int, *, below: bool = False, handles: list | None = None) -> Axes:
    ax.set_axisbelow(True)
    ax.spines["top"].set_visible(False)
    _make_room(ax, entries, below=below)
    shown = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(handles=shown, loc="lower center" if below else "upper center", frameon=False)
    return ax


def _make_room(ax: Axes, entries: int, *, below: bool = False) -> None:
    # The legend gets a strip of its own: wherever it is put inside the data, some curve runs through it.
    share = min(0.5, 0.02 + 0.07 * entries)
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(ax.get_ylim())
    strip = (high - low) * share / (1 - share)
    ax.set_ylim(*scale.inverted().transform([low - strip * below, high + strip * (not below)]))


def _nth(choices: Sequence[str], index: int) -> str:
    return next(islice(cycle(choices), index, None))


def _expect_some(given: Mapping | Sequence, what: str) -> None:
    if not given:
        raise DataError(f"Expected at least one {what} to draw but got none.")
