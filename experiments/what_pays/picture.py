"""The picture: over the budgets, a panel a setting without labels, and beside it one with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments.reporting.pictures import save_picture
from experiments.what_pays.table import NO_DATA, TUNED, budgets_of, of_accuracy, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
LINES = {
    "matched midpoint": ("tab:blue", "--", "s"),
    "learned": ("tab:red", "--", "^"),
    "{verb} a member": ("0.35", "-", "o"),
    "{verb} the matched midpoint": ("tab:blue", "-", "s"),
    "{verb} the learned midpoint": ("tab:red", "-", "^"),
    "matched, layers fitted": ("tab:purple", "--", "D"),
    "{verb} matched, layers fitted": ("tab:purple", "-", "D"),
}
BLIND = {"weight matching": "D", "weight matching, REPAIR on noise": "*"}
LEVELS = {"best member": ("0.35", ":"), "mean of outputs": ("tab:green", ":")}


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the figure of every way over the budgets, a dot a group."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    places = panels_of(cells)
    columns = min(COLUMNS, len(places))
    rows = -(-len(places) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.5 * columns + 0.6, 2.7 * rows + 0.9), layout="constrained", squeeze=False
    )
    for axes in panels.flat[len(places) :]:
        axes.set_axis_off()
    for axes, (setting, kind) in zip(panels.flat, places, strict=False):
        _draw_panel(axes, cells, setting, kind)
    handles = {
        text: handle
        for axes in panels.flat
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    save_picture(figure, path)
    plt.close(figure)


def panels_of(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the setting and kind of every panel.

    Settings with both kinds come first, side by side.
    """
    settings = dict.fromkeys(each["setting"] for each in cells)
    kinds = {
        name: [kind for kind in TUNED if _sizes(cells, name, kind)] or ["unlabelled"] for name in settings
    }
    ordered = sorted(settings, key=lambda name: -len(kinds[name]))
    return [(name, kind) for name in ordered for kind in kinds[name]]


def _draw_panel(axes: Axes, cells: Sequence[Mapping[str, Any]], setting: str, kind: str) -> None:
    """Draw one setting with or without labels."""
    sizes = _sizes(cells, setting, kind)
    _draw_without_data(axes, cells, setting)
    for way, (color, dashes, mark) in LINES.items():
        values = [values_of(cells, setting, budget, way.format(verb=TUNED[kind])) for budget in sizes]
        known = [(place, each) for place, each in enumerate(values, 1) if each]
        if not known:
            continue
        label = way.format(verb="tuned:").replace("tuned: the", "tuned:")
        style: dict[str, Any] = {"color": color, "marker": mark, "markersize": 5, "label": label}
        style["fillstyle"] = "full" if "{verb}" in way else "none"
        axes.plot([place for place, _ in known], [fmean(each.values()) for _, each in known], dashes, **style)
        for place, each in known:
            axes.plot([place] * len(each), list(each.values()), "_", color=color, markersize=5, alpha=0.6)
    axes.set_xticks(range(len(sizes) + 1), ["none", *(each.rpartition(" ")[0] for each in sizes)], fontsize=8)
    axes.set_title(setting, fontsize=9)
    axes.set_xlabel(f"{kind} samples", fontsize=8)
    figure = next(str(each["figure"]) for each in cells if each["setting"] == setting)
    if of_accuracy(cells, setting):
        axes.set_ylabel("test accuracy, %", fontsize=8)
    else:
        # Weight matching's error is ten times that of what is tuned.
        axes.set_yscale("log")
        axes.set_ylabel(fill(figure, 30), fontsize=8)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)


def _draw_without_data(axes: Axes, cells: Sequence[Mapping[str, Any]], setting: str) -> None:
    """Draw what needs no data: merges as marks, networks and the mean of their outputs as lines."""
    for way, mark in BLIND.items():
        values = values_of(cells, setting, NO_DATA, way)
        if values:
            axes.plot([0] * len(values), list(values.values()), "k_", markersize=6)
            axes.plot([0], [fmean(values.values())], f"k{mark}", markersize=6, label=way)
    for way, (color, dashes) in LEVELS.items():
        values = values_of(cells, setting, NO_DATA, way)
        if values:
            axes.axhline(fmean(values.values()), color=color, linestyle=dashes, linewidth=1.2, label=way)


def _sizes(cells: Sequence[Mapping[str, Any]], setting: str, kind: str) -> list[str]:
    return [budget for budget in budgets_of(cells, setting) if budget.endswith(f" {kind}")]
