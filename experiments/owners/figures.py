"""The tables and the picture of networks of several owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from experiments.reporting.pictures import save_picture

SHOWN_ROUNDS = (1, 2, 3, 5, 10)


def one_round_table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a method: the mean over seeds, and its deviation.

    >>> row = {"method": "plain average", "data": "–", "width": 100, "accuracy": 0.5}
    >>> one_round_table([{"rows": [row]}, {"rows": [{**row, "accuracy": 0.7}]}])
    [{'method': 'plain average', 'data of the server': '–', 'hidden units': '100', 'test accuracy': '60.0 ± 14.1'}]
    """
    table = []
    for number, row in enumerate(found[0]["rows"]):
        rows = [each["rows"][number] for each in found]
        widths = sorted({each["width"] for each in rows})
        table.append(
            {
                "method": row["method"],
                "data of the server": row["data"],
                "hidden units": str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}",
                "test accuracy": _spread([each["accuracy"] for each in rows]),
            }
        )
    return table


def halves_table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a way of two owners: as :func:`one_round_table`, without widths."""
    return [
        {key: value for key, value in line.items() if key != "hidden units"}
        for line in one_round_table(found)
    ]


def of_rounds(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a way: the accuracy after some rounds, over seeds.

    >>> of_rounds([{"method": "FedAvg", "accuracies": [0.1, 0.25]}])
    [{'method': 'FedAvg', 'round 1': '10.0', 'round 2': '25.0'}]
    """
    table = []
    for way in dict.fromkeys(each["method"] for each in found):
        curves = [each["accuracies"] for each in found if each["method"] == way]
        shown = [number for number in SHOWN_ROUNDS if number <= len(curves[0])]
        values = {f"round {number}": _spread([curve[number - 1] for curve in curves]) for number in shown}
        table.append({"method": way, **values})
    return table


def draw(
    one: Sequence[Mapping[str, Any]],
    several: Sequence[Mapping[str, Any]],
    halves: Sequence[Mapping[str, Any]],
    path: Path,
) -> None:
    """Draw the accuracy of each method after one round, of each way over rounds, and of two owners' networks."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    count = sum(map(bool, (one, several, halves)))
    size: dict[str, Any] = {"figsize": (6.5 * count, 4.5), "layout": "constrained", "squeeze": False}
    figure, panels = plt.subplots(1, count, **size)
    left = iter(panels[0])
    if one:
        _draw_bars(one, next(left), "MNIST, MLP, one round, ten owners")
    if several:
        _draw_rounds(several, next(left))
    if halves:
        _draw_bars(halves, next(left), "MNIST, MLP, two owners of half the classes")
    save_picture(figure, path)
    plt.close(figure)


def _draw_bars(found: Sequence[Mapping[str, Any]], axes: Axes, title: str) -> None:
    for number, row in enumerate(found[0]["rows"]):
        values = [100 * each["rows"][number]["accuracy"] for each in found]
        name = row["method"] + ("" if row["data"] in ("–", "") else f" ({row['data']})")
        ours = row["method"].startswith(("ours", "trained from ours"))
        axes.barh(name, mean(values), height=0.7, color="tab:red" if ours else "tab:blue")
        axes.plot(values, [name] * len(values), "k|", markersize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %")
    axes.set_xlim(left=max(0, 100 * min(r["accuracy"] for each in found for r in each["rows"]) - 10))
    axes.set_title(title, fontsize=10)


def _draw_rounds(several: Sequence[Mapping[str, Any]], axes: Axes) -> None:
    for way in dict.fromkeys(each["method"] for each in several):
        curves = [each["accuracies"] for each in several if each["method"] == way]
        middle = [100 * mean(values) for values in zip(*curves, strict=True)]
        axes.plot(range(1, len(middle) + 1), middle, "o-", label=way)
    axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("round")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("CIFAR-10, CNN, ten owners", fontsize=10)


def _spread(values: Sequence[float]) -> str:
    after = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{after}"
