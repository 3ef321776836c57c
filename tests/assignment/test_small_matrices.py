"""Small matrices, which are solved without tensors, against the way of large ones and against fifty digits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import implicit_gradient, sinkhorn, sinkhorn_solver
from sinkhorn_rebasin.assignment.small_conjugate_gradient import conjugate_gradient
from tests.assignment.fifty_digits import soft_and_gradient
from tests.assignment.witnesses import relative_error


def problem(n: int, batch: tuple[int, ...] = (), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores of identity plus noise, and what comes in from the loss."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*batch, n, n, generator=generator)
    return torch.eye(n) + 0.1 * noise, torch.randn(*batch, n, n, generator=generator)


def solved(scores: Tensor, weights: Tensor, temperature: float, tolerance: float) -> tuple[Tensor, Tensor]:
    leaf = scores.clone().requires_grad_()
    matrix = sinkhorn(leaf, temperature, tolerance=tolerance).matrix
    matrix.backward(weights.to(matrix))
    assert leaf.grad is not None
    return matrix.detach(), leaf.grad


@pytest.mark.parametrize(("n", "temperature"), [(8, 0.1), (8, 0.05), (8, 0.03), (16, 0.03)])
def test_the_gradient_in_saturation_is_that_of_fifty_digits(n: int, temperature: float) -> None:
    scores, weights = problem(n)
    matrix, gradient = soft_and_gradient(scores, weights, temperature)
    for dtype in (torch.float64, torch.float32):
        for tolerance in (1e-3, 1e-6):
            found, slope = solved(scores.to(dtype), weights, temperature, tolerance)
            off = ~torch.eye(n, dtype=torch.bool)
            assert relative_error(found[off].double(), matrix[off]) < 1e-2
            assert relative_error(slope.double(), gradient) < 1e-2


@pytest.mark.parametrize(("n", "batch"), [(1, ()), (7, (5,)), (40, (2, 3)), (150, ())])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_small_matrices_are_those_of_the_solver_for_large_ones(
    n: int, batch: tuple[int, ...], temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, weights = (tensor.double() for tensor in problem(n, batch))
    small = solved(scores, weights, temperature, 1e-12)
    for module in (sinkhorn_solver, implicit_gradient):
        monkeypatch.setattr(module, "is_small", lambda tensor: False)
    large = solved(scores, weights, temperature, 1e-12)
    torch.testing.assert_close(small[0], large[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(small[1], large[1], rtol=0, atol=1e-9 + 1e-6 * float(large[1].abs().max()))


def test_results_outlive_the_next_call_in_this_and_other_threads() -> None:
    first, second = problem(60, seed=1), problem(60, seed=2)
    expected = [solved(*pair, 0.2, 1e-6) for pair in (first, second)]
    kept = [tensor.clone() for tensor in expected[0]]
    found: list[list[tuple[Tensor, Tensor]]] = [[], []]

    def work(number: int) -> None:
        for _ in range(10):
            found[number].append(solved(*(first, second)[number], 0.2, 1e-6))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(expected[0], kept, strict=True))
    for number, results in enumerate(found):
        assert all(torch.equal(result[1], expected[number][1]) for result in results)


def test_scores_that_are_no_contiguous_memory() -> None:
    scores, weights = problem(9, (4,))
    turned = scores.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    torch.testing.assert_close(solved(turned, weights.mT, 0.3, 1e-6), solved(scores, weights.mT, 0.3, 1e-6))


def test_errors_that_a_program_has_numpy_raise_and_lazy_negatives_change_nothing() -> None:
    scores, weights = problem(6)
    expected = solved(300 * scores, weights, 0.1, 1e-6)
    with np.errstate(all="raise"):
        found = solved(300 * scores, weights, 0.1, 1e-6)
    negative = [torch.complex(torch.zeros(6, 6), -part).conj().imag for part in (300 * scores, weights)]
    assert all(part.is_neg() for part in negative)
    leaf = negative[0].detach().requires_grad_()
    matrix = sinkhorn(leaf, 0.1, tolerance=1e-6).matrix
    matrix.backward(negative[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close((matrix.detach(), leaf.grad), expected, rtol=0, atol=0)


def test_gradients_that_are_infinite_come_out_as_no_numbers_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    scores, weights = problem(5)
    slope = solved(scores, weights * torch.inf, 1.0, 1e-6)[1]
    assert bool(slope.isnan().any())
    assert not recwarn.list


def test_a_solved_system_is_left_alone_while_others_of_its_batch_go_on() -> None:
    # Two edges that do not meet are solved by one product, but for round-off; a path whose weights fall takes dozens.
    weights = np.zeros((2, 30, 30))
    weights[0, [0, 2], [1, 3]] = 4e-5, 7e-21
    weights[1, np.arange(29), np.arange(1, 30)] = np.exp(-np.arange(29) / 3)
    weights += weights.swapaxes(-1, -2)
    system = np.eye(30) * weights.sum(-1, keepdims=True) - weights
    right_side = system @ np.random.default_rng(0).normal(size=(2, 30, 1))
    right_side[0, :4, 0] = 6.7e-11, -6.7e-11, 1.7e-34, 1.2e-34
    x, _, spent = conjugate_gradient(
        lambda x: system @ x, right_side, weights.sum(-1, keepdims=True), 1e-13, 60
    )
    assert spent > 10
    assert x[0, 0] - x[0, 1] == pytest.approx(6.7e-11 / 4e-5)
    assert np.abs(x[0]).max() < 1e-5
