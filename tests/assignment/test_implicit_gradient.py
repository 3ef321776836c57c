"""Three witnesses for the gradient: unrolled to convergence, finite differences, the full linear system."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sinkhorn_rebasin.assignment import sinkhorn
from sinkhorn_rebasin.assignment.implicit_gradient import tangent_residual
from sinkhorn_rebasin.errors import AssignmentError
from tests.assignment.test_sinkhorn import random_scores
from tests.assignment.witnesses import exact_gradient, relative_error

TEMPERATURES = [1.0, 0.3, 0.1, 0.03, 0.01]
SHAPES = [(5, 5), (2, 3, 3), (2, 1, 3, 3), (1, 1)]


def scores_of_spread(shape: tuple[int, ...], temperature: float, seed: int = 0) -> Tensor:
    """Scores whose soft permutation is neither flat nor saturated, so that there is a gradient to check."""
    return random_scores(*shape, seed=seed) * min(1.0, 3 * temperature)


def soft(scores: Tensor, temperature: float) -> Tensor:
    return sinkhorn(scores, temperature, tolerance=1e-14, max_iterations=5000).matrix


def gradient_of(scores: Tensor, weights: Tensor, temperature: float, **arguments: object) -> Tensor:
    leaf = scores.detach().clone().requires_grad_()
    result = sinkhorn(leaf, temperature, **arguments)
    (gradient,) = torch.autograd.grad((result.matrix * weights.to(result.matrix)).sum(), leaf)
    return gradient


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_finite_differences(shape: tuple[int, ...], temperature: float) -> None:
    scores = scores_of_spread(shape, temperature).requires_grad_()
    assert gradcheck(
        lambda x: soft(x, temperature) * temperature,
        (scores,),
        eps=1e-5 * temperature,
        atol=1e-7,
        rtol=1e-6,
        check_forward_ad=True,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_second_derivative(temperature: float) -> None:
    scores = scores_of_spread((2, 3, 3), temperature).requires_grad_()
    assert gradgradcheck(
        lambda x: soft(x, temperature) * temperature**2, (scores,), eps=1e-5 * temperature, atol=1e-6
    )


def test_third_derivative_is_refused() -> None:
    scores = random_scores(3, 3).requires_grad_()
    first = torch.autograd.grad(soft(scores, 1.0).square().sum(), scores, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), scores, create_graph=True)[0]
    with pytest.raises(AssignmentError, match="unrolled"):
        second.square().sum().backward()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_unrolled_to_convergence(shape: tuple[int, ...], temperature: float) -> None:
    scores, weights = scores_of_spread(shape, temperature), random_scores(*shape, seed=1)
    implicit = gradient_of(scores, weights, temperature, tolerance=1e-14)
    unrolled = gradient_of(
        scores, weights, temperature, tolerance=1e-15, max_iterations=20_000, gradient="unrolled"
    )
    torch.testing.assert_close(implicit, unrolled, atol=1e-9 / temperature, rtol=1e-7)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_full_linear_system(temperature: float) -> None:
    scores, weights = scores_of_spread((16, 16), temperature), random_scores(16, 16, seed=1)
    expected = exact_gradient(soft(scores, temperature), weights, temperature)
    assert relative_error(gradient_of(scores, weights, temperature, tolerance=1e-14), expected) < 1e-8


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.1, 0.03])
@pytest.mark.parametrize("n", [6, 50, 120])
def test_float32_against_float64(n: int, temperature: float) -> None:
    scores, weights = random_scores(n, n, seed=n, dtype=torch.float32), random_scores(n, n, seed=1)
    expected = gradient_of(scores.double(), weights, temperature, tolerance=1e-13, max_iterations=5000)
    assert relative_error(gradient_of(scores, weights, temperature), expected) < 1e-4


def test_marginals_that_are_not_one() -> None:
    """The adjoint uses the true row and column sums of the matrix it is given."""
    matrix = random_scores(7, 7).exp()
    residual = tangent_residual(matrix[None], random_scores(1, 7, 7, seed=1))[0]
    torch.testing.assert_close((matrix * residual).sum(0), torch.zeros(7).double(), atol=1e-10, rtol=0)
    torch.testing.assert_close((matrix * residual).sum(1), torch.zeros(7).double(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("gap", [20.0, 60.0, 90.0])
def test_saturated_gradient_keeps_its_relative_accuracy(gap: float) -> None:
    """Two by two: P = σ(gap), dP/dX = σ(gap)·σ(−gap)/2, of size 1e-9 to 1e-39."""
    scores = torch.tensor([[gap, 0.0], [0.0, gap]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    slope = torch.sigmoid(torch.tensor(gap).double()) * torch.sigmoid(-torch.tensor(gap).double()) / 2
    expected = slope * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient_of(scores, weights, 1.0), expected, atol=0, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.1, 0.01, 1e-3, 1e-4])
def test_saturated_gradient_tends_to_zero(temperature: float, dtype: torch.dtype) -> None:
    permutation = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    scores = (torch.eye(9)[permutation] * 10).to(dtype)
    gradient = gradient_of(scores, random_scores(9, 9, seed=2), temperature)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e-20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("sizes", [(2, 3), (90, 150)])
def test_ties_have_a_finite_gradient(sizes: tuple[int, int], temperature: float, dtype: torch.dtype) -> None:
    n, first = sum(sizes), sizes[0]
    blocks = (torch.block_diag(*(torch.ones(size, size) for size in sizes)) * 50).to(dtype)
    weights = random_scores(n, n, seed=3)
    gradient = gradient_of(blocks, weights, temperature)
    inside = blocks > 0
    assert torch.isfinite(gradient).all()
    # within a tied block of size m, P is flat: the gradient is G with row and column means removed, / (m τ)
    for part in (slice(0, first), slice(first, n)):
        block = weights[part, part]
        centred = block - block.mean(0) - block.mean(1, keepdim=True) + block.mean()
        expected = centred / (len(block) * temperature)
        torch.testing.assert_close(
            gradient[part, part].double(), expected, rtol=1e-4, atol=1e-4 / temperature
        )
    assert gradient[~inside].abs().max() < 1e-20


def test_the_gradient_of_a_sum_is_zero_and_the_incoming_gradient_untouched() -> None:
    scores = random_scores(6, 6).requires_grad_()
    sinkhorn(scores, 0.2).matrix.sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-10
    incoming = random_scores(6, 6, seed=1)
    before = incoming.clone()
    sinkhorn(scores, 0.2).matrix.backward(incoming)
    assert torch.equal(incoming, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
class TestFunctionTransforms:
    scores = random_scores(3, 4, 4)

    @staticmethod
    def loss(scores: Tensor) -> Tensor:
        return sinkhorn(scores, 0.3, tolerance=1e-13).matrix.square().sum()

    def test_vmap(self) -> None:
        mapped = torch.func.vmap(lambda x: sinkhorn(x, 0.3, tolerance=1e-13).matrix, in_dims=2)(
            self.scores.permute(1, 2, 0)
        )
        torch.testing.assert_close(mapped, sinkhorn(self.scores, 0.3, tolerance=1e-13).matrix)

    def test_vmap_of_grad(self) -> None:
        mapped = torch.func.vmap(torch.func.grad(self.loss))(self.scores)
        torch.testing.assert_close(mapped, torch.func.grad(self.loss)(self.scores))

    def test_hessian_under_vmap(self) -> None:
        hessian = torch.func.jacrev(torch.func.jacrev(self.loss))
        torch.testing.assert_close(torch.func.vmap(hessian)(self.scores)[1], hessian(self.scores[1]))
        expected = torch.autograd.functional.hessian(self.loss, self.scores[1])
        torch.testing.assert_close(hessian(self.scores[1]), expected)

    def test_warm_start_under_vmap(self) -> None:
        start = sinkhorn(self.scores, 0.3).column_scaling
        warm = torch.func.vmap(lambda x, y: sinkhorn(x, 0.3, initial_scaling=y).matrix)(self.scores, start)
        torch.testing.assert_close(warm, sinkhorn(self.scores, 0.3).matrix, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("mode", ["forward over reverse", "reverse over forward", "forward over forward"])
    @pytest.mark.parametrize("temperature", [0.3, 0.03])
    def test_second_derivatives_in_all_modes(self, mode: str, temperature: float) -> None:
        """Also of the gradient of a warm, saturated one, most entries of which are zero."""
        modes = {"forward": torch.func.jacfwd, "reverse": torch.func.jacrev}
        outer, _, inner = mode.split()

        def loss(scores: Tensor) -> Tensor:
            matrix = sinkhorn(scores, temperature, tolerance=1e-13, max_iterations=5000).matrix
            return (matrix.square() * scores.roll(1)).sum()

        for scores in (self.scores[1] * min(1, 3 * temperature), 40 * torch.eye(4).double()):
            found = modes[outer](modes[inner](loss))(scores)
            torch.testing.assert_close(found, torch.autograd.functional.hessian(loss, scores))

    def test_hessian(self) -> None:
        found = torch.func.vmap(torch.func.hessian(self.loss))(self.scores)
        expected = [torch.autograd.functional.hessian(self.loss, scores) for scores in self.scores]
        torch.testing.assert_close(found, torch.stack(expected))

    def test_product_of_the_hessian_with_a_direction(self) -> None:
        scores, direction = self.scores[0], random_scores(4, 4, seed=5)
        _, found = torch.func.jvp(torch.func.grad(self.loss), (scores,), (direction,))
        expected = torch.autograd.functional.vhp(self.loss, scores, direction)[1]
        torch.testing.assert_close(found, expected)

    def test_third_derivatives_in_forward_mode_are_refused(self) -> None:
        with pytest.raises(AssignmentError, match="unrolled"):
            torch.func.jacfwd(torch.func.hessian(self.loss))(self.scores[0])
