"""The matrix of barriers shows the numbers it was given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.plots import plot_barrier_matrix


def test_cells_hold_the_barriers_and_the_diagonal_is_empty() -> None:
    barriers = torch.tensor([[0.0, 0.1, 0.2], [0.1, 0.0, 0.4], [0.2, 0.4, 0.0]])
    ax = plot_barrier_matrix(barriers, highest=0.8)
    drawn = ax.images[0].get_array().filled(np.nan)
    expected = barriers.double().numpy().copy()
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {
        (column, row): f"{barriers[row, column]:.3f}"
        for row in range(3)
        for column in range(3)
        if row != column
    }
    assert ax.images[0].get_clim() == (0, 0.8)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
    assert barriers.diagonal().tolist() == [0, 0, 0]
    assert not plot_barrier_matrix(torch.ones(11, 11)).texts
    plt.close("all")


def test_other_shapes_and_names_are_told() -> None:
    with pytest.raises(DataError, match=r"shape \(M, M\) but got shape \(2, 3\)"):
        plot_barrier_matrix(torch.zeros(2, 3))
    with pytest.raises(DataError, match="one name a network, 2 of them, but got 1"):
        plot_barrier_matrix(torch.zeros(2, 2), ["a"])
