"""The gradient of a soft permutation in its temperature."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import sinkhorn

GENERATOR = torch.Generator().manual_seed(0)
SCORES, WEIGHTS = (torch.randn(2, 5, 5, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("tau", [0.7, 2.0])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_a_temperature_has_its_gradient(gradient: Literal["implicit", "unrolled"], tau: float) -> None:
    def value(scores: Tensor, temperature: Tensor) -> Tensor:
        result = sinkhorn(scores, temperature, tolerance=1e-12, gradient=gradient)
        return (result.matrix * WEIGHTS).sum()

    leaves = SCORES.clone().requires_grad_(), torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, leaves)
    value(*leaves).backward()
    single = torch.tensor(tau, requires_grad=True)
    value(SCORES, single).backward()
    assert single.grad.item() == pytest.approx(leaves[1].grad.item(), rel=1e-5)


def test_the_matrix_is_that_of_the_number() -> None:
    temperature = torch.tensor(0.3, requires_grad=True)
    assert torch.equal(
        sinkhorn(SCORES, temperature).matrix, sinkhorn(SCORES, float(temperature.detach())).matrix
    )
    assert sinkhorn(SCORES.half(), temperature).matrix.dtype == torch.float32
