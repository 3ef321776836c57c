"""What is drawn is what was given: the tests read the artists back."""

import itertools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots import Bar, plot_barriers, plot_history, plot_paths, plot_permutation


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def path(height: float, accuracies: bool = True) -> PathEvaluation:
    positions = torch.linspace(0, 1, 9)
    bump = height * positions * (1 - positions)
    return PathEvaluation(positions, 0.1 + 4 * bump, 0.9 - bump if accuracies else None)


def legend_of(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def boxes_overlap(ax: plt.Axes) -> bool:
    """Whether the legend covers a point of a curve, in pixels."""
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    drawn = [line for axes in ax.figure.axes for line in axes.get_lines()]
    return any(
        box.contains(*point) for line in drawn for point in line.get_transform().transform(line.get_xydata())
    )


def test_paths_of_losses() -> None:
    paths = {"naive": path(2.0), "matched": path(0.25)}
    ax = plot_paths(paths)
    for line, evaluation in zip(ax.get_lines(), paths.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), evaluation.positions)
        np.testing.assert_array_equal(line.get_ydata(), evaluation.losses)
    assert legend_of(ax) == ["naive (barrier 2)", "matched (barrier 0.25)"]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert "target (rebased)" in labels[0]
    assert "reference" in labels[-1]
    assert not boxes_overlap(ax)


def test_paths_of_accuracies_are_in_percent() -> None:
    ax = plot_paths({"naive": path(2.0)}, "accuracy")
    assert ax.get_lines()[0].get_ydata()[4] == pytest.approx(40.0)
    assert legend_of(ax) == ["naive (barrier 50 points)"]
    assert not boxes_overlap(ax)


def test_many_paths_are_told_apart() -> None:
    ax = plot_paths({str(index): path(index) for index in range(7)})
    looks = {(line.get_color(), line.get_marker()) for line in ax.get_lines()}
    assert len(looks) == 7


def test_given_axes_are_used() -> None:
    figure, axes = plt.subplots(1, 2)
    assert plot_paths({"naive": path(1.0)}, ax=axes[1]) is axes[1]
    assert plot_history({"loss": [1.0]}, ax=axes[0]) is axes[0]
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("log", [False, True])
def test_bars_stand_where_they_belong(log: bool) -> None:
    bars = [Bar("32", "naive", 2.0, 1.5, 2.5), Bar("32", "ours", 0.2), Bar("64", "ours", 0.0, 0.0, 0.1)]
    ax = plot_barriers(bars, log=log)
    heights = [patch.get_height() for patch in ax.patches]
    settings = [round(patch.get_x() + patch.get_width() / 2) for patch in ax.patches]
    assert (heights, settings) == ([2.0, 0.2, 0.0], [0, 0, 1])
    assert [tuple(line.get_ydata()) for line in ax.get_lines()] == [(1.5, 2.5), (0.0, 0.1)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["32", "64"]
    assert legend_of(ax) == ["naive", "ours"]
    assert [text.get_text() for text in ax.texts] == (["0"] if log else [])
    assert ax.get_yscale() == ("log" if log else "linear")
    edges = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(edges))


def test_hard_permutation() -> None:
    ax = plot_permutation(torch.tensor([2, 0, 1]))
    assert ax.collections[0].get_offsets().tolist() == [[2, 0], [0, 1], [1, 2]]


@pytest.mark.parametrize("units", [4, 200])
def test_soft_permutation_puts_weight_where_the_hard_one_does(units: int) -> None:
    indices = torch.randperm(units, generator=torch.Generator().manual_seed(0))
    ax = plot_permutation(torch.eye(units)[indices])
    if ax.images:
        np.testing.assert_array_equal(ax.images[0].get_array().argmax(axis=1), indices)
    else:
        spots = {(int(row), int(column)) for column, row in ax.collections[0].get_offsets()}
        assert spots == set(enumerate(indices.tolist()))
    assert ax.yaxis_inverted()
    assert len(ax.figure.axes) == 2


def test_history() -> None:
    history = {"step": [0, 10, 20], "loss": [3.0, 2.0, 1.0], "temperature": [1.0, 0.3, 0.1]}
    ax = plot_history(history)
    right = ax.figure.axes[1]
    assert ax.get_lines()[0].get_xdata().tolist() == history["step"]
    assert ax.get_lines()[0].get_ydata().tolist() == history["loss"]
    assert right.get_lines()[0].get_ydata().tolist() == history["temperature"]
    assert (right.get_yscale(), ax.get_yscale()) == ("log", "linear")
    assert legend_of(ax) == ["loss", "temperature (right)"]
    assert not boxes_overlap(ax)
    assert len(plot_history({"loss": [1.0, 0.5]}).figure.axes) == 1


def test_history_keeps_both_axes_clear_of_the_legend() -> None:
    falling, level = [1 / (1 + step) for step in range(50)], [1.0] * 25 + [0.1] * 25
    assert not boxes_overlap(plot_history({"loss": falling, "temperature": level}))
    assert not boxes_overlap(plot_history({"loss": level, "validation loss": level, "temperature": falling}))


def test_errors() -> None:
    with pytest.raises(DataError, match="'naive' to have accuracies"):
        plot_paths({"naive": path(1.0, accuracies=False)}, "accuracy")
    with pytest.raises(DataError, match="'loss' or 'accuracy' but got 'area'"):
        plot_paths({"naive": path(1.0)}, "area")
    with pytest.raises(DataError, match="at least one path"):
        plot_paths({})
    with pytest.raises(DataError, match="two for the same pair"):
        plot_barriers([Bar("a", "b", 1.0), Bar("a", "b", 2.0)])
    with pytest.raises(DataError, match="at least one bar"):
        plot_barriers([])
    with pytest.raises(DataError, match="one length"):
        plot_history({"loss": [1.0], "temperature": [1.0, 0.5]})
    with pytest.raises(DataError, match="at least one curve"):
        plot_history({"temperature": [1.0]})
    for wrong in (torch.zeros(2, 3), torch.zeros(3), torch.zeros(2, 2, dtype=torch.long)):
        with pytest.raises(DataError, match="but got shape"):
            plot_permutation(wrong)
