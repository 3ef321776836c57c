"""The barrier and the area against numpy on curves whose height and area are known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkhorn_rebasin.connectivity.barrier import area_under_curve, barrier, excess
from sinkhorn_rebasin.errors import DataError


def brute_force(positions: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Barrier and area by plain loops over the positions and the panels between them."""
    first, last, start, end = positions[0], positions[-1], losses[0], losses[-1]
    above = []
    for position, loss in zip(positions, losses, strict=True):
        t = (position - first) / (last - first)
        above.append(max(0.0, loss - ((1 - t) * start + t * end)))
    widths = [(b - a) / (last - first) for a, b in itertools.pairwise(positions)]
    area = sum(w * (a + b) / 2 for w, a, b in zip(widths, above[:-1], above[1:], strict=True))
    return max(above), area


@settings(deadline=None)
@given(
    losses=st.lists(st.floats(-10, 10, width=16), min_size=2, max_size=30),
    seed=st.integers(0, 2**31 - 1),
)
def test_agrees_with_brute_force(losses: list[float], seed: int) -> None:
    positions = np.cumsum(np.random.default_rng(seed).uniform(0.1, 1.0, size=len(losses)))
    expected = brute_force(positions, np.array(losses))
    arguments = torch.from_numpy(positions), torch.tensor(losses, dtype=torch.float64)
    found = barrier(*arguments).item(), area_under_curve(*arguments).item()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found[0] == 0) == (found[1] == 0)


@pytest.mark.parametrize(("left", "right", "height"), [(0.0, 0.0, 1.0), (0.2, 1.7, 2.5), (3.0, -1.0, 0.125)])
def test_quadratic_bump(left: float, right: float, height: float) -> None:
    positions = torch.linspace(0, 1, 1001, dtype=torch.float64)
    chord = (1 - positions) * left + positions * right
    losses = chord + 4 * height * positions * (1 - positions)
    assert barrier(positions, losses).item() == pytest.approx(height, abs=1e-12)
    assert area_under_curve(positions, losses).item() == pytest.approx(2 * height / 3, rel=1e-5)


def test_below_the_chord_there_is_no_barrier() -> None:
    positions = torch.linspace(0, 1, 11, dtype=torch.float64)
    valley = positions.square() - positions
    assert barrier(positions, valley).item() == 0.0
    assert area_under_curve(positions, valley).item() == 0.0
    signed = sum((a + b) / 2 * 0.1 for a, b in itertools.pairwise(valley.tolist()))
    assert area_under_curve(positions, valley, signed=True).item() == pytest.approx(signed)
    assert signed < 0


def test_a_dip_does_not_pay_for_a_bump() -> None:
    positions = torch.linspace(0, 1, 401, dtype=torch.float64)
    wave = torch.sin(2 * torch.pi * positions)
    assert area_under_curve(positions, wave, signed=True).item() == pytest.approx(0, abs=1e-12)
    assert area_under_curve(positions, wave).item() == pytest.approx(1 / torch.pi, rel=1e-4)


def test_several_paths_at_once() -> None:
    positions = torch.linspace(0, 1, 9)
    losses = torch.rand(4, 3, 9, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([barrier(positions, row) for row in losses.flatten(0, 1)]).reshape(4, 3)
    assert torch.equal(barrier(positions, losses), one_by_one)


def test_ends_are_exactly_on_the_chord() -> None:
    losses = torch.rand(50, 7, generator=torch.Generator().manual_seed(1)) * 1e6
    above = excess(torch.linspace(0, 1, 7), losses)
    assert torch.equal(above[:, [0, -1]], torch.zeros(50, 2))


def test_nan_is_not_hidden() -> None:
    assert barrier(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, torch.nan, 0.0])).isnan()


@pytest.mark.parametrize(
    ("positions", "losses", "text"),
    [
        ([0.0], [1.0], "at least two positions"),
        ([[0.0, 1.0]], [1.0, 1.0], "at least two positions"),
        ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0], "ascending"),
        ([1.0, 0.0], [1.0, 1.0], "ascending"),
        ([0.0, 1.0], [1.0, 1.0, 1.0], "one loss for each of the 2 positions"),
        ([0.0, 1.0], 1.0, "one loss for each"),
    ],
)
def test_errors(positions: list, losses: list, text: str) -> None:
    with pytest.raises(DataError, match=text):
        barrier(torch.tensor(positions), torch.tensor(losses))
