"""Distance over seconds of both implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting.pictures import save_picture


def draw(rows: dict[str, Any], path: Path) -> None:
    """One panel a network; each side's best learning rate is drawn strong."""
    figure = Figure(figsize=(5 * len(rows), 3.6), layout="constrained")
    panels = figure.subplots(1, len(rows), squeeze=False)
    for panel, (name, row) in zip(panels[0], rows.items(), strict=True):
        for side, color in (("published", "tab:gray"), ("ours", "tab:blue")):
            for rate, curve in row[side].items():
                best = rate == row[f"{side}, rate"]
                label = f"{side}, learning rate {rate}" if best else None
                seconds, _, values = zip(*curve, strict=True)
                panel.plot(seconds, values, color=color, alpha=1.0 if best else 0.25, label=label)
        panel.axhline(row["goal"], color="black", linewidth=0.5, linestyle=":")
        panel.set(title=name, xlabel="processor seconds of training steps")
        panel.legend(frameon=False)
    panels[0][0].set_ylabel("squared distance of hard-permuted weights")
    save_picture(figure, path)
