from __future__ import annotations

import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.merging.partial.least_squares import LeastSquares


def sums_of(x: torch.Tensor, targets: torch.Tensor, intercept: bool) -> LeastSquares:
    sums = LeastSquares(intercept)
    for part, goal in zip(x.split(30), targets.split(30), strict=True):
        sums.update(part, goal)
    return sums


def test_it_solves_least_squares_as_numpy_does() -> None:
    torch.manual_seed(0)
    x, targets = torch.randn(100, 5).double(), torch.randn(100, 3).double()
    weight, none = sums_of(x, targets, False).solve(torch.randn(3, 5), None, 0.0)
    expected = np.linalg.lstsq(x.numpy(), targets.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(weight, expected, atol=1e-10)
    assert none is None
    weight, intercept = sums_of(x, targets, True).solve(torch.randn(3, 5), torch.randn(3), 0.0)
    ones = np.concatenate([x.numpy(), np.ones((100, 1))], 1)
    expected = np.linalg.lstsq(ones, targets.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(np.column_stack([weight, intercept]), expected, atol=1e-10)


def test_the_ridge_draws_to_the_given_weight() -> None:
    torch.manual_seed(0)
    x, targets, prior = torch.randn(60, 4).double(), torch.randn(60, 2).double(), torch.randn(2, 4).double()
    strength = 0.3 * float(x.square().sum(0).mean())
    rows = np.concatenate([x.numpy(), np.sqrt(strength) * np.eye(4)])
    goals = np.concatenate([targets.numpy(), np.sqrt(strength) * prior.numpy().T])
    expected = np.linalg.lstsq(rows, goals, rcond=None)[0].T
    weight, _ = sums_of(x, targets, False).solve(prior, None, 0.3)
    np.testing.assert_allclose(weight, expected, atol=1e-10)


def test_inputs_that_say_nothing_keep_the_given_weight_or_are_refused_by_name() -> None:
    x, goal = torch.ones(40, 3).double(), 6 * torch.ones(40, 1).double()
    weight, _ = sums_of(x, goal, False).solve(torch.tensor([[4.0, 1.0, -2.0]]), None, 1e-9)
    assert (weight - torch.tensor([[5.0, 2.0, -1.0]])).abs().max() < 1e-4
    with pytest.raises(DataError, match="layer 'stem' that can be inverted"):
        sums_of(x, goal, False).solve(torch.zeros(1, 3), None, 0.0, "stem")


def test_moments_of_outputs_are_those_of_the_samples() -> None:
    torch.manual_seed(0)
    x, weight = 3 + torch.randn(70, 4).double(), torch.randn(2, 4).double()
    mean, variance = sums_of(x, torch.zeros(70, 2).double(), True).output_moments(weight)
    np.testing.assert_allclose(mean, (x @ weight.mT).numpy().mean(0), atol=1e-12)
    np.testing.assert_allclose(variance, (x @ weight.mT).numpy().var(0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_half_precision_are_kept_whole(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs, targets = (40 * torch.randn(2000, size).to(dtype) for size in (12, 3))
    sums = LeastSquares(intercept=True)
    sums.update(inputs, targets)
    weight, intercept = sums.solve(torch.zeros(3, 12), torch.zeros(3), 1e-9)
    with_one = np.concatenate([inputs.double().numpy(), np.ones((2000, 1))], 1)
    expected = torch.from_numpy(np.linalg.lstsq(with_one, targets.double().numpy(), rcond=None)[0]).T
    torch.testing.assert_close(weight, expected[:, :-1], rtol=0, atol=1e-4)
    assert intercept is not None
    torch.testing.assert_close(intercept, expected[:, -1], rtol=0, atol=1e-3)
