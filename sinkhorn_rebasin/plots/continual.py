"""Accuracies of tasks learned one after another."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots.style import COLOURS, DASHES, MARKERS, axes_or_new, expect_some, nth, with_legend


def plot_accuracy_matrix(matrix: Tensor, ax: Axes | None = None) -> Axes:
    """Draw an accuracy matrix as a heat map.

    It goes from 0 to 100 percent, with numbers in its cells up to ten tasks.

    Args:
        matrix: (T, T), fractions; row i holds the accuracies after learning task i. NaN stays empty.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: the matrix is not square.

    Example:
        >>> import torch
        >>> ax = plot_accuracy_matrix(torch.tensor([[0.9, 0.1], [0.5, 0.7]]))
        >>> [text.get_text() for text in ax.texts]
        ['90', '10', '50', '70']
        >>> plt.close()
    """
    percent = 100 * _checked(matrix)
    ax = axes_or_new(ax, size=(5.4, 4.4))
    drawn = ax.imshow(percent.numpy(), cmap="viridis", vmin=0, vmax=100)
    ax.figure.colorbar(drawn, ax=ax, label="accuracy (%)", fraction=0.046, pad=0.04)
    if len(percent) <= 10:
        for row, values in enumerate(percent.tolist()):
            for column, value in enumerate(values):
                if value == value:
                    color = "black" if value > 60 else "white"
                    ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    _count_from_one(ax, len(percent))
    ax.set_xlabel("tested on task")
    ax.set_ylabel("after learning task")
    return ax


def plot_task_accuracies(matrix: Tensor, ax: Axes | None = None) -> Axes:
    """Draw each task's accuracy since it was learned.

    The mean over the tasks learned so far is drawn, too.

    Args:
        matrix: (T, T), fractions; row i holds the accuracies after learning task i.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: the matrix is not square.

    Example:
        >>> import torch
        >>> ax = plot_task_accuracies(torch.tensor([[0.75, 0.0], [0.5, 0.75]]))
        >>> ax.get_lines()[-1].get_ydata().tolist()
        [75.0, 62.5]
        >>> plt.close()
    """
    percent = 100 * _checked(matrix)
    ax = axes_or_new(ax)
    colors = plt.get_cmap("viridis")
    tasks = len(percent)
    for task in range(tasks):
        ax.plot(
            range(task + 1, tasks + 1),
            percent[task:, task].numpy(),
            color=colors(task / max(1, tasks)),
            marker=".",
            linewidth=1.0,
        )
    ax.plot(
        range(1, tasks + 1), _means(percent), color="black", marker="o", markersize=4, label="mean so far"
    )
    return _finished(ax, 1)


def plot_average_accuracy(matrices: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Draw several methods' mean accuracy by task.

    After each task the mean is over the tasks learned so far.

    Args:
        matrices: method to accuracy matrix, fractions; of a matrix with its last row alone one point is drawn.
        ax: where to draw; None makes a new figure.

    Raises:
        DataError: no matrix, or one that is not square.

    Example:
        >>> import torch
        >>> ax = plot_average_accuracy({"replay": torch.tensor([[0.75, 0.1], [0.5, 0.75]])})
        >>> ax.get_lines()[0].get_ydata().tolist()
        [75.0, 62.5]
        >>> plt.close()
    """
    expect_some(matrices, "accuracy matrix")
    ax = axes_or_new(ax)
    for index, (method, matrix) in enumerate(matrices.items()):
        means = _means(100 * _checked(matrix))
        ax.plot(
            range(1, len(means) + 1),
            means,
            color=nth(COLOURS, index),
            marker=nth(MARKERS, index),
            linestyle=nth(DASHES, index),
            markersize=4,
            linewidth=1.8,
            label=method,
        )
    return _finished(ax, len(matrices))


def _means(percent: Tensor) -> list[float]:
    return [float(row[: index + 1].mean()) for index, row in enumerate(percent)]


def _checked(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"Expected an accuracy matrix of shape (tasks, tasks) but got {tuple(matrix.shape)}.")
    return matrix.detach().cpu().double()


def _finished(ax: Axes, entries: int) -> Axes:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("tasks learned")
    ax.set_ylabel("accuracy (%)")
    ax.grid(True, color="0.9", linewidth=0.8)
    return with_legend(ax, entries, below=True)


def _count_from_one(ax: Axes, tasks: int) -> None:
    every = max(1, tasks // 10)
    shown = range(0, tasks, every)
    ax.set_xticks(list(shown), [str(task + 1) for task in shown])
    ax.set_yticks(list(shown), [str(task + 1) for task in shown])
