"""Pictures of what continual learning leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes

from experiments.continual_learning.runs import Run
from experiments.reporting.pictures import save_picture
from sinkhorn_rebasin.plots import plot_accuracy_matrix, plot_average_accuracy, plot_task_accuracies


def draw(runs: Sequence[Run], out: Path) -> None:
    """Draw every method's matrix and task curves, and the average accuracies of all of them together."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    matrices = {
        method: torch.stack([run.tensor() for run in runs if run.method == method]).mean(dim=0)
        for method in dict.fromkeys(run.method for run in runs)
    }
    for method, matrix in matrices.items():
        figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
        plot_accuracy_matrix(matrix, axes[0])
        plot_task_accuracies(matrix, axes[1])
        figure.suptitle(method)
        stem = method.replace(" ", "_").replace(",", "").replace("+", "p")
        save_picture(figure, out / f"matrix-{stem}.png")
        plt.close(figure)
    figure, single = plt.subplots(figsize=(10, 5), layout="constrained")
    plot_average_accuracy(matrices, single)
    _beside(single, matrices)
    save_picture(figure, out / "average_accuracy.png")
    plt.close(figure)


def _beside(axes: Axes, methods: Iterable[str]) -> None:
    """Put the legend beside the curves, which are too many for it to stand below, and ours in bold."""
    axes.get_legend().remove()
    for index, (line, method) in enumerate(zip(axes.lines, methods, strict=True)):
        ours = method == "re-basin, ours"
        line.set_color("black" if ours else mpl.colormaps["tab20"](index % 20))
        line.set_linewidth(2.8 if ours else 1.4)
    values = [float(value) for line in axes.lines for value in line.get_ydata() if value == value]
    axes.set_ylim(min(values) - 2, max(values) + 2)
    axes.figure.legend(loc="outside right center", frameon=False)
