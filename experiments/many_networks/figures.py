"""The table and the pictures of merges of several networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import torch

from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin.plots import plot_barrier_matrix

Found = Sequence[Mapping[str, Any]]


def table(found: Found, methods: Iterable[str]) -> list[dict[str, Any]]:
    """Return one line a setting and method, mean and deviation over draws.

    >>> row = {"loss": 0.5, "accuracy": 0.9}
    >>> each = {"setting": "MNIST", "networks": 4, "rows": {"one network": row}}
    >>> table([each, each], ["one network"])[0]["test loss"]
    '0.500 ± 0.000'
    """
    lines = []
    for title, draws in settings_of(found).items():
        for method in methods:
            rows = [each["rows"][method] for each in draws if method in each["rows"]]
            if not rows:
                continue
            lines.append(
                {
                    "setting": title,
                    "draws": len(rows),
                    "method": method,
                    "test loss": spread(rows, "loss", 1, 3),
                    "accuracy": spread(rows, "accuracy", 100, 1),
                    "loss after REPAIR": spread(rows, "repaired_loss", 1, 3),
                    "accuracy after REPAIR": spread(rows, "repaired_accuracy", 100, 1),
                    "processor seconds": spread(rows[:1], "seconds", 1, 0),
                }
            )
    return lines


def settings_of(found: Found) -> dict[str, list[Mapping[str, Any]]]:
    """Group draws by the number of networks and the setting."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for each in found:
        groups.setdefault(f"{each['networks']} of {each['setting']}", []).append(each)
    return groups


def spread(rows: Found, key: str, unit: float, digits: int) -> str:
    """Write a mean with its deviation over draws, or a dash.

    >>> spread([{"loss": 0.25}], "loss", 1, 2), spread([{}], "loss", 1, 2)
    ('0.25', '–')
    """
    values = [unit * row[key] for row in rows if key in row]
    if not values:
        return "–"
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def draw(found: Found, methods: Sequence[str], path: Path) -> None:
    """Draw the test accuracy of every mean, before and after REPAIR."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = settings_of(found)
    size = (3.6 * len(groups) + 1, 3.4)
    figure, axes = plt.subplots(1, len(groups), figsize=size, layout="constrained", squeeze=False)
    for axis, (title, draws) in zip(axes[0], groups.items(), strict=True):
        means = {
            name: {key: 100 * mean(row[key] for row in rows) for key in rows[0] if key.endswith("accuracy")}
            for name in methods
            if (rows := [each["rows"][name] for each in draws if name in each["rows"]])
        }
        axis.barh(list(means), [row["accuracy"] for row in means.values()], height=0.7, label="mean")
        repaired = {
            name: row["repaired_accuracy"] for name, row in means.items() if "repaired_accuracy" in row
        }
        axis.plot(list(repaired.values()), list(repaired), "k|", markersize=10, label="after REPAIR")
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("test accuracy, %")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", frameon=False, fontsize=8)
    save_picture(figure, path)
    plt.close(figure)


def draw_barriers(found: Found, path: Path) -> None:
    """Draw the barriers between every two networks of the first draw of each setting, before and after learning."""
    import matplotlib.pyplot as plt

    pairs = [
        (title, name, row["barriers"])
        for title, draws in settings_of(found).items()
        for name, row in draws[0]["rows"].items()
        if "barriers" in row
    ]
    if not pairs:
        return
    columns = max(sum(title == other for other, _, _ in pairs) for title, _, _ in pairs)
    titles = list(dict.fromkeys(title for title, _, _ in pairs))
    size = (5.0 * columns, 4.0 * len(titles))
    figure, axes = plt.subplots(len(titles), columns, figsize=size, layout="compressed", squeeze=False)
    for line, title in zip(axes, titles, strict=True):
        here = [(name, torch.tensor(values)) for other, name, values in pairs if other == title]
        highest = max(float(values.max()) for _, values in here)
        for axis, (name, values) in zip(line, here, strict=False):
            plot_barrier_matrix(values, ax=axis, highest=highest)
            axis.set_title(f"{title}: {name}", fontsize=10)
    save_picture(figure, path)
    plt.close(figure)
