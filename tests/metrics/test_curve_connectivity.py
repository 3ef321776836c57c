from __future__ import annotations

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import curve_connectivity, path_curvature


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 5.0, 0.0, 3.0], -3.0),  # a barrier of three above the mean of the ends
        ([1.0, 2.5, -2.0, 3.0], 4.0),  # the curve is better than its ends, by more than it is worse elsewhere
        ([2.0, 2.0, 2.0], 0.0),
    ],
)
def test_it_is_the_largest_difference_with_its_sign(losses: list[float], expected: float) -> None:
    assert curve_connectivity(torch.tensor(losses)) == expected


def test_it_reads_an_evaluated_path_and_refuses_what_is_none() -> None:
    positions = torch.tensor([0.0, 0.5, 1.0])
    assert curve_connectivity(sr.PathEvaluation(positions, torch.tensor([0.0, 4.0, 2.0]))) == -3.0
    with pytest.raises(DataError, match="two losses"):
        curve_connectivity(torch.tensor([1.0]))


def test_curvature_along_a_segment_is_that_of_the_hessian() -> None:
    torch.manual_seed(0)
    start, end = (nn.Linear(3, 1, bias=False).double() for _ in range(2))
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    path = sr.evaluate_path((start, end), [(x, y)], nn.functional.mse_loss, points=5)
    direction = (end.weight - start.weight).detach()
    hessian = 2 * x.T @ x / len(x)
    expected = (direction @ hessian @ direction.T).item()
    found = path_curvature(path)
    torch.testing.assert_close(found, torch.full((3,), expected, dtype=torch.float64))
    length = float(direction.norm())
    unit = direction / length
    assert float(path_curvature(path, length)[1]) == pytest.approx((unit @ hessian @ unit.T).item())
    with pytest.raises(DataError, match="length above 0"):
        path_curvature(path, 0.0)
