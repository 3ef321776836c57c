from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch

from sinkhorn_rebasin.landscape import PlaneEvaluation
from sinkhorn_rebasin.plots import plot_plane


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(count: int) -> plt.Axes:
    grid = torch.linspace(-1, 1, 5, dtype=torch.float64)
    marks = {f"epoch {k}": (k / 10, (k / 10) ** 2) for k in range(count)}
    return plot_plane(PlaneEvaluation(grid, grid, 1 + grid[:, None] ** 2 + grid**2, None, marks))


def test_a_few_networks_are_all_named() -> None:
    ax = drawn(3)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["epoch 0", "epoch 1", "epoch 2"]
    assert [line.get_xydata().tolist()[0] for line in ax.get_lines()] == [
        [k / 10, (k / 10) ** 2] for k in range(3)
    ]


def test_many_networks_are_one_line_with_named_ends() -> None:
    ax = drawn(9)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["epoch 0", "epoch 8"]
    assert ax.get_lines()[0].get_xydata().tolist() == [[k / 10, (k / 10) ** 2] for k in range(9)]
