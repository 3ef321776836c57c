"""The table and the picture of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.reporting.pictures import save_picture

KINDS = ("raw, segment", "aligned, segment", "raw", "aligned")


def table(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a cell.

    >>> cell = {"width": 8, "batch size": 10, "accuracy": 0.9, "similarity": 0.8, **dict.fromkeys(KINDS, -0.1)}
    >>> table([cell])[0]["aligned"]
    '-0.100'
    """
    return [
        {
            "width": cell["width"],
            "batch size": cell["batch size"],
            "test accuracy": f"{100 * cell['accuracy']:.1f}",
            "CKA": f"{cell['similarity']:.3f}",
            **{kind: f"{cell[kind]:.3f}" for kind in KINDS},
        }
        for cell in cells
    ]


def shares(cells: Sequence[Mapping[str, Any]], poor: float) -> dict[str, Any]:
    """Return how many cells are poorly connected, raw and aligned, and the share that alignment removes.

    >>> cells = [{**dict.fromkeys(KINDS, -0.1), "aligned": value} for value in (0.0, -0.2)]
    >>> shares(cells, 0.05)["share removed on the curve"]
    0.5
    """
    counts = {kind: sum(cell[kind] < -poor for cell in cells) for kind in KINDS}
    found: dict[str, Any] = {"cells": len(cells), "poorly connected": counts}
    for name, suffix in (("segment", ", segment"), ("curve", "")):
        raw = [cell for cell in cells if cell[f"raw{suffix}"] < -poor]
        removed = sum(cell[f"aligned{suffix}"] >= -poor for cell in raw)
        found[f"share removed on the {name}"] = removed / len(raw) if raw else None
    return found


def draw(cells: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw connectivity over the grid, raw and aligned, on segments and on curves."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    widths, sizes = (sorted({cell[key] for cell in cells}) for key in ("width", "batch size"))
    figure, panels = plt.subplots(1, len(KINDS), figsize=(11, 2.9), layout="constrained", sharey=True)
    for axes, kind in zip(panels, KINDS, strict=True):
        grid = np.full((len(sizes), len(widths)), np.nan)
        for cell in cells:
            grid[sizes.index(cell["batch size"]), widths.index(cell["width"])] = cell[kind]
        image = axes.imshow(grid, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            color = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
        axes.set_xticks(range(len(widths)), [str(width) for width in widths])
        axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("width")
        axes.set_title(kind if "segment" in kind else f"{kind}, curve", fontsize=9)
    panels[0].set_ylabel("batch size")
    figure.colorbar(image, ax=panels, label="connectivity")
    figure.suptitle(title, fontsize=10)
    save_picture(figure, path)
    plt.close(figure)
