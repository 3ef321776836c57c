"""The tables and the picture of fused pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

SINGLE = "single networks"


def table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a setting and alignment: the test accuracy of every fusion, the mean over pairs.

    >>> rows = [{"alignment": "weights", "fusion": "mean", "loss": 0.5, "accuracy": 0.9}]
    >>> table([{"setting": "MNIST", "seeds": [0, 1], "rows": rows}])
    [{'setting': 'MNIST, 1 pair', 'alignment': 'weights', 'mean': '90.0'}]
    """
    lines = []
    for setting, pairs in _by_setting(found).items():
        for alignment in _names(pairs, "alignment"):
            chosen = [[row for row in pair["rows"] if row["alignment"] == alignment] for pair in pairs]
            fusions = {row["fusion"] for row in chosen[0]}
            line = {"setting": _titled(setting, pairs), "alignment": alignment}
            for fusion in _names(pairs, "fusion"):
                if not fusion:
                    continue
                name = "" if fusions == {""} else fusion
                values = [100 * row["accuracy"] for rows in chosen for row in rows if row["fusion"] == name]
                line[fusion] = _spread(values) if values else "–"
            lines.append(line)
    return lines


def gaps(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the share of RegMean's error above single networks that alignment takes away, the mean over pairs.

    >>> names = ["single networks", "as they are", "weights"]
    >>> rows = [{"alignment": n, "fusion": "RegMean", "accuracy": a} for n, a in zip(names, (0.9, 0.5, 0.8))]
    >>> gaps([{"setting": "MNIST", "seeds": [0, 1], "rows": rows}])[0]["RegMean"]
    '0.75'
    """
    lines = []
    for setting, pairs in _by_setting(found).items():
        for alignment in _names(pairs, "alignment"):
            if alignment in (SINGLE, "as they are"):
                continue
            line = {"setting": _titled(setting, pairs), "alignment": alignment}
            for fusion in _names(pairs, "fusion"):
                if fusion:
                    line[fusion] = _spread([_share(pair, alignment, fusion) for pair in pairs], 2)
            lines.append(line)
    return lines


def _share(pair: Mapping[str, Any], alignment: str, fusion: str) -> float:
    accuracy = {(row["alignment"], row["fusion"]): row["accuracy"] for row in pair["rows"]}
    single = next(row["accuracy"] for row in pair["rows"] if row["alignment"] == SINGLE)
    before = accuracy["as they are", "RegMean"]
    return float((accuracy[alignment, fusion] - before) / (single - before))


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the test accuracy of every fusion after every alignment, the mean over pairs."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    settings = _by_setting(found)
    figure, panels = plt.subplots(
        1, len(settings), figsize=(4.4 * len(settings), 3.2), layout="constrained", squeeze=False
    )
    for axis, (setting, pairs) in zip(panels[0], settings.items(), strict=True):
        alignments = [name for name in _names(pairs, "alignment") if name != SINGLE]
        fusions = [name for name in _names(pairs, "fusion") if name]
        for place, fusion in enumerate(fusions):
            heights = [
                statistics.fmean(
                    100 * row["accuracy"]
                    for pair in pairs
                    for row in pair["rows"]
                    if (row["alignment"], row["fusion"]) == (alignment, fusion)
                )
                for alignment in alignments
            ]
            at = [number + (place - (len(fusions) - 1) / 2) * 0.16 for number in range(len(alignments))]
            axis.bar(at, heights, width=0.15, label=fusion)
        singles = [100 * row["accuracy"] for p in pairs for row in p["rows"] if row["alignment"] == SINGLE]
        axis.axhline(statistics.fmean(singles), color="black", linewidth=0.8, label=SINGLE)
        axis.set_xticks(range(len(alignments)), alignments, fontsize=8)
        axis.set_title(_titled(setting, pairs), fontsize=10)
        axis.set_ylabel("test accuracy, %")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)
    plt.close(figure)


def _by_setting(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for pair in found:
        settings.setdefault(pair["setting"], []).append(pair)
    return settings


def _names(pairs: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for pair in pairs for row in pair["rows"]))


def _titled(setting: str, pairs: Sequence[object]) -> str:
    return f"{setting}, {len(pairs)} pair{'s' if len(pairs) != 1 else ''}"


def _spread(values: Sequence[float], digits: int = 1) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
