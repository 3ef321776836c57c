"""What the measured rows look like: on the screen, in RESULTS.md and in a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.table import Table

from experiments.reporting.pictures import save_picture
from experiments.sinkhorn_speed.operators import TOLERANCES


def show(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        title="Sinkhorn operator, forward and backward, one thread (median processor ms ± interquartile range)"
    )
    for heading in (
        "scores",
        "n",
        "τ",
        "ours",
        "published",
        "ratio",
        "first run",
        "wall",
        "marginal error",
        "gradient error",
    ):
        table.add_column(heading, justify="left" if heading == "scores" else "right")
    for row in rows:
        gradient = (
            f"{row['ours_gradient']:.1e} | {row['published_gradient']:.1e}" if "ours_gradient" in row else ""
        )
        table.add_row(
            row["scores"],
            str(row["n"]),
            f"{row['temperature']:g}",
            f"{row['ours_ms']:.2f} ± {row['ours_spread_ms']:.2f}",
            f"{row['published_ms']:.2f} ± {row['published_spread_ms']:.2f}",
            f"{row['ratio']:.1f}",
            f"{row['ratio_first']:.1f}",
            f"{row['ratio_wall']:.1f}",
            f"{row['ours_marginal']:.1e} | {row['published_marginal']:.1e}",
            gradient,
        )
    return table


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    titles = {"identity": "identity + 0.1 noise", "noise": "Gaussian noise"}
    for panel, kind in zip(panels, titles, strict=True):
        for color, temperature in zip(("C0", "C1", "C2"), TOLERANCES, strict=True):
            chosen = [r for r in rows if r["scores"] == kind and r["temperature"] == temperature]
            for name, style in (("ours", "o-"), ("published", "s--")):
                label = f"{name}, τ = {temperature:g}"
                sizes, times = [r["n"] for r in chosen], [r[f"{name}_ms"] for r in chosen]
                panel.plot(sizes, times, style, color=color, label=label)
        panel.set(title=titles[kind], xlabel="n", xscale="log", yscale="log")
        panel.set_xticks(sorted({r["n"] for r in rows}), [str(n) for n in sorted({r["n"] for r in rows})])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("forward + backward [processor ms]")
    panels[0].legend(fontsize=8)
    save_picture(figure, path)
    plt.close(figure)


def readable(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases from n = 512 on, as RESULTS.md shows them: processor milliseconds, forward and backward."""
    return [
        {
            "scores": row["scores"],
            "n": row["n"],
            "τ": row["temperature"],
            "ours, ms": f"{row['ours_ms']:.3g}",
            "published, ms": f"{row['published_ms']:.3g}",
            "ratio": f"{row['ratio']:.3g}",
            "ratio, first run of each turn": f"{row['ratio_first']:.3g}",
            "our marginal error": f"{row['ours_marginal']:.0e}",
            "published marginal error": f"{row['published_marginal']:.0e}",
        }
        for row in rows
        if row["n"] >= 512
    ]
