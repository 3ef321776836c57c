"""A start from far away does not swallow the scores."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import sinkhorn

Gradient = Literal["implicit", "unrolled"]
gradients = pytest.mark.parametrize("gradient", ["implicit", "unrolled"])


def problem(n: int = 12, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, n, n, generator=generator), torch.randn(*batch, n, generator=generator)


@gradients
@pytest.mark.parametrize("size", [1e1, 1e3, 1e4, 1e5, 1e6, 1e8, 1e30, 3e38])
def test_a_start_from_far_away_gives_the_matrix_of_a_cold_start(size: float, gradient: Gradient) -> None:
    scores, direction = problem()
    start = direction / direction.abs().max() * size
    cold = sinkhorn(scores, 0.5).matrix
    warm = sinkhorn(scores, 0.5, initial_scaling=start, gradient=gradient)
    assert warm.converged
    torch.testing.assert_close(warm.matrix, cold, rtol=0, atol=2e-5)


@gradients
@pytest.mark.parametrize("factor", [-1e5, 1e3, 1e5])
def test_the_scaling_of_other_scores(factor: float, gradient: Gradient) -> None:
    scores, _ = problem()
    start = sinkhorn(scores, 0.5).column_scaling * factor
    warm = sinkhorn(scores, 0.5, initial_scaling=start, gradient=gradient)
    torch.testing.assert_close(warm.matrix, sinkhorn(scores, 0.5).matrix, rtol=0, atol=2e-5)


def test_a_large_matrix() -> None:
    """With a spread that is not large there was no second try, and the error was 149."""
    scores, direction = problem(100)
    warm = sinkhorn(scores, 0.1, initial_scaling=1e8 * direction)
    torch.testing.assert_close(warm.matrix, sinkhorn(scores, 0.1).matrix, rtol=0, atol=2e-5)


def test_one_bad_start_in_a_batch_leaves_the_others_warm() -> None:
    scores, _ = problem(40, (3,))
    scores[2] *= 1e4  # its starts may be large
    exact = sinkhorn(scores, 0.1)
    start = exact.column_scaling.clone()
    start[1] *= 1e3
    warm = sinkhorn(scores, 0.1, initial_scaling=start)
    torch.testing.assert_close(warm.matrix[:2], exact.matrix[:2], rtol=0, atol=2e-5)
    start[1] = exact.column_scaling[1]
    assert sinkhorn(scores, 0.1, initial_scaling=start).iterations <= 2


@gradients
@pytest.mark.parametrize("shift", [0.0, 1e3, -1e6])
def test_a_constant_says_nothing(shift: float, gradient: Gradient) -> None:
    scores, _ = problem()
    exact = sinkhorn(scores, 0.5)
    warm = sinkhorn(scores, 0.5, initial_scaling=exact.column_scaling + shift, gradient=gradient)
    torch.testing.assert_close(warm.matrix, exact.matrix, rtol=0, atol=2e-5)


@pytest.mark.parametrize("temperature", [0.1, 1e-2, 1e-3, 1e-5])
def test_a_good_start_stays_warm_at_any_temperature(temperature: float) -> None:
    """Low temperatures make the rounding of a start as large as that of the scores themselves, not larger."""
    scores, _ = problem()
    exact = sinkhorn(scores, temperature)
    warm = sinkhorn(scores, temperature, initial_scaling=exact.column_scaling)
    assert warm.converged
    assert warm.iterations <= 5
    torch.testing.assert_close(warm.matrix, exact.matrix, rtol=0, atol=2e-3 if temperature < 1e-2 else 1e-4)
