"""The gradient of flat matrices beside the general one, the full linear system and forward mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from sinkhorn_rebasin.assignment import sinkhorn
from sinkhorn_rebasin.assignment.flat_gradient import LARGEST_ENTRY, flat_tangent_residual, works_in
from sinkhorn_rebasin.assignment.small_conjugate_gradient import conjugate_gradient
from sinkhorn_rebasin.assignment.small_gradient import small_tangent_residual
from tests.assignment.witnesses import exact_gradient, plain_sinkhorn, relative_error


def flat_matrix(*shape, dtype):
    generator = torch.Generator().manual_seed(0)
    scores = 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    gradient = torch.randn(*shape, generator=generator, dtype=torch.float64)
    matrix = sinkhorn(scores, tolerance=1e-12).matrix
    return matrix.to(dtype).numpy(), gradient.to(dtype).numpy()


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((1, 40, 40), torch.float64, 1e-11),
        ((3, 32, 32), torch.float64, 1e-11),
        ((1, 96, 96), torch.float32, 2e-5),
    ],
)
def test_is_the_general_residual(shape, dtype, error):
    matrix, gradient = flat_matrix(*shape, dtype=dtype)
    found = np.array(flat_tangent_residual(matrix, gradient))
    expected = small_tangent_residual(matrix.astype(np.float64), gradient.astype(np.float64))
    assert found.dtype == works_in(matrix)
    assert np.abs(found - expected).max() < error * np.abs(expected).max()


def test_wide_matrices_in_single_precision_have_the_gradient_of_the_full_system():
    generator = torch.Generator().manual_seed(1)
    scores = torch.eye(128) + 0.1 * torch.randn(128, 128, generator=generator)
    weights = torch.randn(128, 128, generator=generator)
    leaf = scores.clone().requires_grad_()
    result = sinkhorn(leaf, 1.0, tolerance=1e-4)
    result.matrix.backward(weights)
    assert result.matrix.max() < 0.1
    assert (
        relative_error(leaf.grad, exact_gradient(plain_sinkhorn(scores, 1.0), weights.double(), 1.0)) < 1e-3
    )
    precise = sinkhorn(scores, 1.0, tolerance=1e-6).matrix
    assert (result.matrix - precise).abs().max() < 1e-4 * precise.max()


@pytest.mark.parametrize("coupling", [1e-1, 1e-4])
def test_blocks_that_hardly_meet_keep_their_gradient_in_single_precision(coupling):
    # Eight units share each block, so entries reach the largest that counts as flat.
    generator = np.random.default_rng(0)
    matrix = coupling / 96 * generator.uniform(0.5, 1.5, (96, 96))
    for start in range(0, 96, 8):
        matrix[start : start + 8, start : start + 8] += generator.uniform(0.6, 1.4, (8, 8))
    for _ in range(2000):
        matrix /= matrix.sum(1, keepdims=True)
        matrix /= matrix.sum(0, keepdims=True)
    gradient = generator.standard_normal((1, 96, 96))
    assert 0.18 < matrix.max() < LARGEST_ENTRY
    expected = matrix * small_tangent_residual(matrix[None], gradient)
    found = matrix * np.array(
        flat_tangent_residual(matrix[None].astype(np.float32), gradient.astype(np.float32))
    )
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_gradient_of_nothing_is_left_to_the_general_way():
    matrix, gradient = flat_matrix(1, 32, 32, dtype=torch.float64)
    assert flat_tangent_residual(matrix, np.zeros_like(gradient)) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_the_gradient_of_a_direction_keeps_its_own():
    scores = torch.randn(2, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direction, weights = torch.randn(2, *scores.shape, dtype=torch.float64)

    def gradient(x):
        leaf = x.requires_grad_() if x.is_leaf else x
        return torch.autograd.grad((sinkhorn(leaf, tolerance=1e-13).matrix * weights).sum(), leaf)[0]

    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(
            gradient(forward_ad.make_dual(scores.clone().requires_grad_(), direction))
        )
    step = 1e-5
    ahead, behind = (gradient((scores + sign * step * direction).detach()) for sign in (1, -1))
    assert torch.allclose(along.tangent, (ahead - behind) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("matrices", [1, 2])
def test_conjugate_gradients_solve_one_system_as_they_solve_several(matrices):
    generator = np.random.default_rng(0)
    half = generator.normal(size=(matrices, 20, 20))
    system = half @ half.swapaxes(-1, -2) + 20 * np.eye(20)
    right_side = generator.normal(size=(matrices, 20, 1))
    diagonal = np.einsum("bii->bi", system)[..., None]
    solution, solved, spent = conjugate_gradient(lambda x: system @ x, right_side, diagonal, 1e-12, 60)
    assert solved
    assert 3 < spent < 60
    assert np.allclose(system @ solution, right_side, atol=1e-9)
    assert not conjugate_gradient(lambda x: system @ x, right_side, diagonal, 1e-12, 3)[1]


@pytest.mark.parametrize("size", [66, 72, 100])
@pytest.mark.parametrize("batch", [1, 2])
def test_newton_steps_in_single_precision_lead_where_those_in_double_do(size, batch):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch, size, size, generator=generator)
    found = sinkhorn(scores, 0.35, tolerance=1e-4)
    assert found.converged
    assert found.iterations > 6
    expected = plain_sinkhorn(scores[0], 0.35)
    assert (found.matrix[0].double() - expected).abs().max() < 2e-4
