"""The table and the picture of averages on the way from initialisation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a method: the mean accuracy of the average after each step, in percent.

    >>> table([{"steps": [0, 50], "curves": {"as they are": [0.1, 0.5]}}])
    [{'average': 'as they are', 'step 0': '10.0', 'step 50': '50.0'}]
    """
    lines = []
    for name in pairs[0]["curves"]:
        columns = zip(*(pair["curves"][name] for pair in pairs), strict=True)
        shown = {
            f"step {step}": _spread([100 * value for value in column])
            for step, column in zip(pairs[0]["steps"], columns, strict=True)
        }
        lines.append({"average": name, **shown})
    return lines


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the test accuracy of the average over the steps of training, and that of the networks."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    steps = pairs[0]["steps"]
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for name in pairs[0]["curves"]:
        columns = zip(*(pair["curves"][name] for pair in pairs), strict=True)
        means = [100 * statistics.fmean(column) for column in columns]
        look = {"color": "0.5", "linestyle": ":"} if name == "the networks" else {"marker": "o"}
        if name.startswith("ours"):
            look |= {"color": "black"}
        axes.plot(range(len(steps)), means, label=name, markersize=4, **look)
    axes.axhline(10, color="0.8", zorder=0)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set_title(str(pairs[0].get("setting", "")), fontsize=10)
    axes.set_xlabel("steps of training before the average")
    axes.set_ylabel("test accuracy, %")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    save_picture(figure, path)
    plt.close(figure)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
