"""How the mean fares as more networks are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl

from experiments.many_networks.figures import Found
from experiments.reporting.pictures import save_picture

FEWEST_COUNTS = 2


def accuracies(found: Found, method: str) -> dict[int, float]:
    """Return the mean test accuracy by the number of networks, in per cent: after REPAIR where there is one.

    >>> two = {"networks": 2, "rows": {"ours": {"accuracy": 0.5, "repaired_accuracy": 0.75}}}
    >>> accuracies([two], "ours")
    {2: 75.0}
    """
    values: dict[int, list[float]] = {}
    for each in found:
        if (row := each["rows"].get(method)) is not None:
            accuracy = row.get("repaired_accuracy", row["accuracy"])
            values.setdefault(each["networks"], []).append(100 * accuracy)
    return {count: mean(values[count]) for count in sorted(values)}


def by_count(found: Found, methods: Iterable[str]) -> list[dict[str, Any]]:
    """Return one line a setting and method: the accuracy of each number of networks, and how far it falls.

    The fall is that from the fewest networks to the most. Settings of one number alone are left out.

    >>> draw = {"setting": "CNN", "rows": {"ours": {"accuracy": 0.5}}}
    >>> draws = [draw | {"networks": count} for count in (2, 4, 8)]
    >>> by_count(draws, ["ours"])[0]["8 networks"], by_count(draws[:1], ["ours"])
    ('50.0', [])
    """
    lines = []
    for title, draws in settings_by_title(found).items():
        counts = sorted({each["networks"] for each in draws})
        for method in methods:
            values = accuracies(draws, method)
            if not values:
                continue
            known = {f"{n} networks": f"{values[n]:.1f}" if n in values else "–" for n in counts}
            ends = counts[0] in values and counts[-1] in values
            fall = f"{values[counts[0]] - values[counts[-1]]:.1f}" if ends else "–"
            lines.append({"setting": title, "method": method, **known, "fall": fall})
    return lines


def settings_by_title(found: Found) -> dict[str, list[Mapping[str, Any]]]:
    """Group the draws of settings that were measured for several numbers of networks."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for each in found:
        groups.setdefault(each["setting"], []).append(each)
    return {
        title: draws
        for title, draws in groups.items()
        if len({each["networks"] for each in draws}) >= FEWEST_COUNTS
    }


def draw_by_count(found: Found, methods: Sequence[str], path: Path) -> None:
    """Draw the test accuracy over the number of networks, if there is a setting to draw."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = settings_by_title(found)
    if not groups:
        return
    size = (5.5 * len(groups) + 1, 4)
    figure, axes = plt.subplots(1, len(groups), figsize=size, layout="constrained", squeeze=False)
    for axis, (title, draws) in zip(axes[0], groups.items(), strict=True):
        for number, method in enumerate(methods):
            values = accuracies(draws, method)
            repaired = any("repaired_accuracy" in each["rows"].get(method, {}) for each in draws)
            if values:
                style = "o-" if repaired else "--" if method == "one network" else ":"
                color = f"C{number}" if repaired else "black"
                axis.plot(list(values), list(values.values()), style, color=color, label=method)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("networks averaged")
        axis.set_ylabel("test accuracy after REPAIR, %")
        axis.set_xticks(sorted({each["networks"] for each in draws}))
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    save_picture(figure, path)
    plt.close(figure)
