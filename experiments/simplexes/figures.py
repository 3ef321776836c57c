"""The table and the picture of ensembles drawn from simplexes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture


def table(triples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line an ensemble: means over triples, in percent.

    >>> row = {"ensemble": "three networks", "networks": 3, "error": 0.05, "error of a member": 0.06}
    >>> (line,) = table([{"rows": [row]}])
    >>> line["networks"], line["test error"], line["error of a member"], line["vertices trained with"]
    (3, '5.00', '6.00', '–')
    """
    lines = []
    for number, row in enumerate(triples[0]["rows"]):
        same = [triple["rows"][number] for triple in triples]
        lines.append(
            {
                "ensemble": row["ensemble"],
                "networks": row["networks"],
                "test error": _spread([100 * each["error"] for each in same]),
                "error of a member": _spread([100 * each["error of a member"] for each in same]),
                "vertices trained with": _together(same, "way"),
                "concentration": _together(same, "concentration"),
                "triples": len(same),
            }
        )
    return lines


def draw(triples: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the error of every ensemble, a dot a triple."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [row["ensemble"] for row in triples[0]["rows"]]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for number, name in enumerate(names):
        errors = [100 * triple["rows"][number]["error"] for triple in triples]
        axes.barh(name, statistics.fmean(errors), height=0.7, color="0.6" if number == 0 else "tab:blue")
        axes.plot(errors, [name] * len(errors), "k.", markersize=5)
    axes.axvline(
        statistics.fmean(100 * triple["rows"][0]["error"] for triple in triples), color="0.4", linewidth=0.8
    )
    axes.invert_yaxis()
    axes.set_title(str(triples[0].get("setting", "")), fontsize=10)
    axes.set_xlabel("test error of the ensemble, %")
    save_picture(figure, path)
    plt.close(figure)


def _together(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return "; ".join(dict.fromkeys(f"{row.get(name, '–')}" for row in rows))


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
