"""Pictures of the accuracy matrix show its numbers."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots import plot_accuracy_matrix, plot_average_accuracy, plot_task_accuracies

MATRIX = torch.tensor([[0.8, 0.2, 0.1], [0.9, 0.7, 0.3], [0.5, 0.6, 0.9]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_heat_map_is_the_matrix_in_percent() -> None:
    ax = plot_accuracy_matrix(MATRIX)
    np.testing.assert_allclose(ax.images[0].get_array(), 100 * MATRIX)
    assert [text.get_text() for text in ax.texts] == ["80", "20", "10", "90", "70", "30", "50", "60", "90"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    assert ax.get_ylabel() == "after learning task"
    assert not plot_accuracy_matrix(torch.rand(20, 20)).texts


def test_cells_that_were_not_tested_stay_empty() -> None:
    ax = plot_accuracy_matrix(MATRIX.masked_fill(torch.ones(3, 3).triu(1).bool(), torch.nan))
    assert len(ax.texts) == 6
    assert np.ma.masked_invalid(ax.images[0].get_array()).mask.sum() == 3


def test_curves_begin_when_a_task_is_learned() -> None:
    lines = plot_task_accuracies(MATRIX).get_lines()
    for task, line in enumerate(lines[:3]):
        np.testing.assert_array_equal(line.get_xdata(), range(task + 1, 4))
        np.testing.assert_allclose(line.get_ydata(), 100 * MATRIX[task:, task])
    np.testing.assert_allclose(lines[3].get_ydata(), [80.0, 80.0, 200 / 3])


def test_methods_side_by_side() -> None:
    last = torch.full((3, 3), torch.nan)
    last[-1] = 0.9
    ax = plot_average_accuracy({"replay": MATRIX, "joint": last})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["replay", "joint"]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [80.0, 80.0, 200 / 3])
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), [np.nan, np.nan, 90.0])
    figure, axes = plt.subplots()
    assert plot_average_accuracy({"replay": MATRIX}, axes) is axes
    assert figure.axes == [axes]


def test_errors() -> None:
    for draw in (plot_accuracy_matrix, plot_task_accuracies, lambda m: plot_average_accuracy({"a": m})):
        with pytest.raises(DataError, match=r"\(tasks, tasks\) but got \(2, 3\)"):
            draw(torch.zeros(2, 3))
    with pytest.raises(DataError, match="at least one accuracy matrix"):
        plot_average_accuracy({})
