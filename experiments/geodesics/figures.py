"""The table and the picture of segments and geodesics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a matching and path: how far errors and losses rise above the chord, as means over pairs.

    >>> side = {"barrier": 0.5, "largest": 0.6, "loss barrier": 1.0}
    >>> rows = [{"matching": "none", "path": "line", "train": side, "test": side}]
    >>> table([{"rows": rows}])[0]["test error above the chord"]
    '50.0'
    """
    lines = []
    for number, row in enumerate(pairs[0]["rows"]):
        same = [pair["rows"][number] for pair in pairs]
        line = {"matching": row["matching"], "path": row["path"]}
        for side in ("train", "test"):
            line[f"{side} error above the chord"] = _spread([100 * each[side]["barrier"] for each in same])
        line["largest test error"] = f"{100 * statistics.fmean(each['test']['largest'] for each in same):.1f}"
        losses = [each["test"]["loss barrier"] for each in same]
        lines.append({**line, "test loss above the chord": f"{statistics.fmean(losses):.3f}"})
    return lines


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the test error along every path, a panel a matching, as means over pairs."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    matchings = list(dict.fromkeys(row["matching"] for row in pairs[0]["rows"]))
    size: dict[str, Any] = {"figsize": (2.3 * len(matchings), 3.1), "layout": "constrained", "sharey": True}
    figure, panels = plt.subplots(1, len(matchings), squeeze=False, **size)
    for axes, matching in zip(panels[0], matchings, strict=True):
        for number, row in enumerate(pairs[0]["rows"]):
            if row["matching"] == matching:
                curves = [pair["rows"][number]["test"]["errors"] for pair in pairs]
                means = [100 * statistics.fmean(values) for values in zip(*curves, strict=True)]
                places = [place / (len(means) - 1) for place in range(len(means))]
                axes.plot(places, means, label=row["path"])
        axes.set_title(f"matching: {matching}", fontsize=9)
        axes.set_xlabel("from target to reference")
    panels[0][0].set_ylabel("test error, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(str(pairs[0].get("setting", "")), fontsize=10)
    save_picture(figure, path)
    plt.close(figure)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
