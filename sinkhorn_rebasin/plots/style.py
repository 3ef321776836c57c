"""How all pictures look.

Colours are those of Okabe and Ito (2008), told apart in every common form of colour blindness; markers, line styles
and hatches repeat the distinction without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sinkhorn_rebasin.errors import DataError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")


def axes_or_new(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the given axes or a new figure's."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def with_legend(ax: Axes, entries: int, *, below: bool = False, handles: list | None = None) -> Axes:
    """Give axes a legend in its own strip."""
    ax.set_axisbelow(True)
    ax.spines["top"].set_visible(False)
    make_room(ax, entries, below=below)
    shown = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(handles=shown, loc="lower center" if below else "upper center", frameon=False)
    return ax


def make_room(ax: Axes, entries: int, *, below: bool = False) -> None:
    """Widen the vertical axis for so many entries.

    They get a strip of their own.
    """
    # The legend gets a strip of its own: wherever it is put inside the data, some curve runs through it.
    share = min(0.5, 0.02 + 0.07 * entries)
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(ax.get_ylim())
    strip = (high - low) * share / (1 - share)
    ax.set_ylim(*scale.inverted().transform([low - strip * below, high + strip * (not below)]))


def nth(choices: Sequence[str], index: int) -> str:
    """Pick one of the choices, going round."""
    return next(islice(cycle(choices), index, None))


def expect_some(given: Mapping | Sequence, what: str) -> None:
    """Raise DataError when nothing was given."""
    if not given:
        raise DataError(f"Expected at least one {what} to draw but got none.")
