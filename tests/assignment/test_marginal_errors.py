"""Marginal errors are those of the matrix, not of how they are added up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import sinkhorn
from sinkhorn_rebasin.assignment.sinkhorn_solver import attainable_tolerance, marginal_error
from sinkhorn_rebasin.assignment.sums import weighted_column_sums
from tests.assignment.witnesses import exact_error

SCORES = {
    "eye": torch.eye,
    "zeros": lambda n: torch.zeros(n, n),
    "saturated": lambda n: 5 * torch.eye(n).roll(1, 0),
    "equal rows": lambda n: (torch.arange(n) / n).expand(n, n),
    "equal columns": lambda n: (torch.arange(n) / n)[:, None].expand(n, n),
    "blocks": lambda n: torch.kron(torch.eye(4), torch.ones(n // 4, n // 4)),
    "band": lambda n: -(torch.arange(n)[:, None] - torch.arange(n)).abs().float() / n,
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("n", [64, 100, 192, 500])
def test_plain_scores_converge_and_the_error_is_true(name: str, n: int) -> None:
    """In float32 a product that adds rows up one by one was off by more than the tolerance from n = 192."""
    result = sinkhorn(SCORES[name](n))
    tolerance = attainable_tolerance(1e-6, n, torch.float32)
    assert result.converged
    assert exact_error(result.matrix) <= tolerance
    assert abs(float(result.marginal_error) - exact_error(result.matrix)) <= 0.5 * tolerance
    assert result.iterations <= 6


@pytest.mark.parametrize("name", ["saturated", "equal rows"])
@pytest.mark.parametrize("n", [42, 51, 64, 260])
def test_batches_of_plain_scores_converge(name: str, n: int) -> None:
    result = sinkhorn(SCORES[name](n).expand(2, n, n))
    assert result.converged
    assert exact_error(result.matrix) <= attainable_tolerance(1e-6, n, torch.float32)


@pytest.mark.parametrize(
    "shape", [(1, 20, 3), (5, 64, 7), (2, 70, 70), (1, 300, 200), (2, 300, 200), (3, 320, 10)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_columns(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    matrix, weights = torch.rand(shape, dtype=dtype), torch.rand(shape[:2], dtype=dtype)
    expected = torch.einsum("bn,bnm->bm", weights.double(), matrix.double())
    found = weighted_column_sums(weights, matrix)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=16 * torch.finfo(dtype).eps, atol=0)


def test_an_error_is_measured_where_there_is_one() -> None:
    matrix: Tensor = torch.full((2, 500, 500), 1 / 500)
    matrix[1, 3, 4] += 1e-5
    error = marginal_error(matrix)
    assert error[0] < 1e-6
    assert error[1] == pytest.approx(1e-5, rel=0.05)
