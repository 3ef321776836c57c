from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.conjugate_gradient import conjugate_gradient, solve_dense
from tests.assignment.test_sinkhorn import random_scores


def weights_and_laplacian(n: int) -> tuple[Tensor, Tensor]:
    weights = random_scores(2, n, n).exp()
    weights = weights + weights.mT
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    return weights, torch.diag_embed(weights.sum(-1)) - weights


@pytest.mark.parametrize("shifted", [False, True])
def test_both_solvers_solve(shifted: bool) -> None:
    weights, laplacian = weights_and_laplacian(12)
    shift = random_scores(2, 12, seed=1).abs() if shifted else None
    system = laplacian if shift is None else laplacian + torch.diag_embed(shift)
    right = random_scores(2, 12, seed=2)
    right = right if shifted else right - right.mean(-1, keepdim=True)
    iterative = conjugate_gradient(
        lambda x: (system @ x.unsqueeze(-1)).squeeze(-1),
        right,
        system.diagonal(dim1=-2, dim2=-1),
        torch.full((2,), 1e-13, dtype=torch.float64),
        50,
        singular=not shifted,
    )
    assert iterative.solved.all()
    for x in (iterative.vector, solve_dense(weights.clone(), right, shift)):
        torch.testing.assert_close((system @ x.unsqueeze(-1)).squeeze(-1), right, atol=1e-10, rtol=0)


def test_a_limit_is_reported() -> None:
    _, laplacian = weights_and_laplacian(12)
    right = random_scores(2, 12, seed=2)
    right -= right.mean(-1, keepdim=True)
    solution = conjugate_gradient(
        lambda x: (laplacian @ x.unsqueeze(-1)).squeeze(-1),
        right,
        laplacian.diagonal(dim1=-2, dim2=-1),
        torch.zeros(2, dtype=torch.float64),
        2,
    )
    assert solution.iterations == 2
    assert not solution.solved.any()


def test_nothing_to_solve_gives_zero() -> None:
    zeros = torch.zeros(2, 5)
    found = conjugate_gradient(lambda x: x * 0, zeros, zeros, torch.zeros(2), 10)
    assert found.solved.all()
    assert torch.equal(found.vector, zeros)
    assert torch.equal(solve_dense(torch.zeros(2, 5, 5), zeros), zeros)


def test_disconnected_blocks_stay_finite() -> None:
    block = torch.ones(3, 3, dtype=torch.float64)
    weights = torch.block_diag(block, block)[None]
    right = torch.tensor([[1.0, -1.0, 0.0, 0.0, 2.0, -2.0]], dtype=torch.float64)
    x = solve_dense(weights.clone(), right)[0]
    laplacian = torch.diag(weights[0].sum(0)) - weights[0]
    torch.testing.assert_close(laplacian @ x, right[0], atol=1e-6, rtol=0)
