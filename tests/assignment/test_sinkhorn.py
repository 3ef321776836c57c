from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sinkhorn_rebasin.assignment import hard_assignment, sinkhorn
from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning
from tests.assignment.fifty_digits import soft_and_gradient
from tests.assignment.witnesses import plain_sinkhorn, relative_error


def random_scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_equals_plain_sinkhorn(temperature: float, gradient: str) -> None:
    scores = random_scores(2, 3, 12, 12)
    result = sinkhorn(scores, temperature, tolerance=1e-12, max_iterations=20_000, gradient=gradient)
    assert result.converged
    torch.testing.assert_close(result.matrix, plain_sinkhorn(scores, temperature), atol=1e-9, rtol=1e-9)


def test_two_by_two_has_a_closed_form() -> None:
    scores = torch.tensor([[0.7, -0.2], [0.1, 0.4]], dtype=torch.float64)
    for temperature in (2.0, 0.5, 0.05):
        odds = math.exp(float(scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0]) / (2 * temperature))
        stay = odds / (1 + odds)
        expected = torch.tensor([[stay, 1 - stay], [1 - stay, stay]], dtype=torch.float64)
        found = sinkhorn(scores, temperature, tolerance=1e-14).matrix
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.03, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_reaches_its_tolerance_at_every_temperature(n: int, temperature: float, dtype: torch.dtype) -> None:
    result = sinkhorn(random_scores(3, n, n, seed=n, dtype=dtype), temperature)
    deviation = torch.maximum(
        (result.matrix.double().sum(-1) - 1).abs().amax(-1),
        (result.matrix.double().sum(-2) - 1).abs().amax(-1),
    )
    assert result.converged
    assert deviation.max() <= 2e-6
    torch.testing.assert_close(result.marginal_error.double(), deviation, atol=1e-6, rtol=0)


def test_tends_to_the_hard_assignment() -> None:
    scores = random_scores(4, 20, 20, seed=3)
    soft = sinkhorn(scores, 1e-4).matrix
    hard = torch.nn.functional.one_hot(hard_assignment(scores), 20).double()
    torch.testing.assert_close(soft, hard, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_give_equal_shares(temperature: float, dtype: torch.dtype) -> None:
    flat = sinkhorn(torch.full((5, 5), 3.0, dtype=dtype), temperature).matrix
    torch.testing.assert_close(flat, torch.full((5, 5), 0.2, dtype=dtype))
    blocks = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3)).to(dtype) * 50
    expected = torch.block_diag(torch.full((2, 2), 0.5), torch.full((3, 3), 1 / 3)).to(dtype)
    torch.testing.assert_close(sinkhorn(blocks, temperature).matrix, expected)


def test_unwanted_columns_do_not_underflow() -> None:
    scores = torch.zeros(6, 6)
    scores[:, 0] = 1e4
    torch.testing.assert_close(sinkhorn(scores, 0.01).matrix, torch.full((6, 6), 1 / 6), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "gap"), [(torch.float32, 87.0), (torch.float32, 95.0), (torch.float64, 715.0)]
)
def test_no_entry_is_subnormal(dtype: torch.dtype, gap: float) -> None:
    scores = gap * torch.eye(12, dtype=dtype) + random_scores(12, 12, dtype=dtype)
    assert float(torch.exp(torch.tensor(-gap, dtype=dtype))) > 0
    result = sinkhorn(scores, 1.0)
    torch.testing.assert_close(result.matrix, torch.eye(12, dtype=dtype))
    entries = result.matrix[result.matrix > 0]
    assert entries.min() >= torch.finfo(dtype).tiny


def test_small_entries_keep_their_size() -> None:
    scores = 62.0 * torch.eye(12) + random_scores(12, 12, dtype=torch.float32)
    expected, _ = soft_and_gradient(scores, scores, 1.0)
    assert expected.min() < 1e-28
    torch.testing.assert_close(sinkhorn(scores, 1.0).matrix.double(), expected, rtol=1e-2, atol=0)


def test_columns_that_underflow_without_a_hard_start() -> None:
    scores = torch.zeros(6, 6)
    scores[:, 0] = 2.0
    result = sinkhorn(scores, 0.01)
    assert result.iterations <= 2
    torch.testing.assert_close(result.matrix, torch.full((6, 6), 1 / 6), atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([1.0, 0.1, 0.01]),
    scale=st.floats(0.01, 5),
)
def test_symmetries_of_the_map(n: int, seed: int, temperature: float, scale: float) -> None:
    """Constants added to rows and columns change nothing; permuting and transposing commute with it."""
    scores = random_scores(n, n, seed=seed) * scale
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(n, generator=generator)
    shifted = scores + random_scores(n, 1, seed=seed + 1) + random_scores(1, n, seed=seed + 2)

    def soft(x: Tensor) -> Tensor:
        return sinkhorn(x, temperature, tolerance=1e-12, max_iterations=5000).matrix

    matrix = soft(scores)
    torch.testing.assert_close(soft(shifted), matrix, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(soft(scores[rows][:, columns]), matrix[rows][:, columns], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(soft(scores.T), matrix.T, atol=1e-6, rtol=1e-6)


def test_batch_entries_do_not_influence_each_other() -> None:
    scores = torch.stack([random_scores(8, 8) * size for size in (0.1, 1.0, 30.0)])
    together = sinkhorn(scores, 0.1, tolerance=1e-12, max_iterations=3000).matrix
    for one, alone in zip(scores, together, strict=True):
        expected = sinkhorn(one, 0.1, tolerance=1e-12, max_iterations=3000).matrix
        torch.testing.assert_close(alone, expected, atol=1e-8, rtol=1e-8)


def test_empty_batch() -> None:
    scores = torch.zeros(0, 4, 4, requires_grad=True)
    result = sinkhorn(scores)
    assert result.matrix.shape == (0, 4, 4)
    assert result.converged
    result.matrix.sum().backward()
    assert hard_assignment(scores).shape == (0, 4)


class TestColumnScaling:
    def test_reproduces_the_matrix(self) -> None:
        scores = random_scores(3, 9, 9)
        result = sinkhorn(scores, 0.2)
        again = torch.softmax((scores + result.column_scaling.unsqueeze(-2)) / 0.2, dim=-1)
        torch.testing.assert_close(result.matrix, again)
        assert not result.column_scaling.requires_grad

    def test_saves_the_iterations_at_the_same_scores(self) -> None:
        scores = random_scores(30, 30)
        cold = sinkhorn(scores, 0.1)
        warm = sinkhorn(scores, 0.1, initial_scaling=cold.column_scaling)
        assert warm.iterations <= 1 < cold.iterations - 5

    @pytest.mark.parametrize("temperature", [0.3, 0.09, 0.02])
    def test_helps_at_another_temperature(self, temperature: float) -> None:
        scores = random_scores(30, 30)
        start = sinkhorn(scores, temperature * 1.05).column_scaling
        cold, warm = sinkhorn(scores, temperature), sinkhorn(scores, temperature, initial_scaling=start)
        assert warm.iterations < cold.iterations
        torch.testing.assert_close(cold.matrix, warm.matrix, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("temperature", [1.0, 0.05])
    def test_a_bad_start_does_not_change_the_answer(self, temperature: float) -> None:
        scores = random_scores(12, 12)
        start = random_scores(12, seed=9) * 10
        bad = sinkhorn(scores, temperature, initial_scaling=start, tolerance=1e-10)
        good = sinkhorn(scores, temperature, tolerance=1e-10)
        torch.testing.assert_close(bad.matrix, good.matrix, atol=1e-6, rtol=0)


class TestHonesty:
    @pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
    def test_says_when_it_did_not_converge(self, gradient: str) -> None:
        with pytest.warns(
            ConvergenceWarning, match=r"Expected a marginal error of at most 1e-09 but got"
        ) as log:
            result = sinkhorn(
                random_scores(20, 20), 0.05, tolerance=1e-9, max_iterations=3, gradient=gradient
            )
        assert len(log) == 1
        assert not result.converged
        assert result.marginal_error > 1e-9
        assert torch.isfinite(result.matrix).all()

    @pytest.mark.parametrize("n", [3, 100, 600])
    def test_the_tolerance_is_reached_in_float32(self, n: int) -> None:
        assert sinkhorn(random_scores(n, n, dtype=torch.float32), 0.5, tolerance=1e-12).converged


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype) -> None:
        scores = random_scores(6, 6, dtype=dtype).requires_grad_()
        result = sinkhorn(scores, 0.5)
        assert result.matrix.dtype == torch.float32
        (result.matrix * random_scores(6, 6, seed=1, dtype=torch.float32)).sum().backward()
        assert scores.grad is not None
        assert scores.grad.dtype == dtype
        assert scores.grad.abs().max() > 0

    def test_autocast_changes_nothing(self) -> None:
        scores = random_scores(40, 40, dtype=torch.float32)
        weights = random_scores(40, 40, seed=1, dtype=torch.float32)
        gradients = []
        for enabled in (False, True):
            leaf = scores.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                result = sinkhorn(leaf, 0.3)
                assert result.matrix.dtype == torch.float32
                (result.matrix * weights).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)

    def test_error_in_float32(self) -> None:
        scores = random_scores(60, 60, dtype=torch.float32)
        for temperature in (1.0, 0.1, 0.03):
            expected = sinkhorn(scores.double(), temperature, tolerance=1e-12, max_iterations=5000).matrix
            assert relative_error(sinkhorn(scores, temperature).matrix, expected) < 1e-5


def test_nothing_passed_in_is_changed() -> None:
    scores, start = random_scores(5, 5).requires_grad_(), random_scores(5, seed=1)
    before, start_before = scores.detach().clone(), start.clone()
    state = torch.get_rng_state()
    sinkhorn(scores, torch.tensor(0.05), initial_scaling=start).matrix.sum().backward()
    assert torch.equal(scores.detach(), before)
    assert torch.equal(start, start_before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("scores", "arguments", "message"),
    [
        (torch.tensor([[1.0, 2.0], [math.nan, 0.0]]), {}, r"nan at index \(1, 0\)"),
        (torch.tensor([[[1.0, -math.inf], [0.0, 0.0]]]), {}, r"-inf at index \(0, 0, 1\)"),
        (torch.zeros(2, 3), {}, r"\(2, 3\)"),
        (torch.zeros(3), {}, r"\(3,\)"),
        (torch.zeros(0, 0), {}, "at least one row"),
        (torch.zeros(2, 2, dtype=torch.long), {}, "torch.int64"),
        (torch.full((2, 2), 1e38), {"temperature": 1e-4}, "raise the temperature"),
        (torch.zeros(2, 2), {"temperature": 1e-40}, "raise the temperature"),
        (torch.zeros(2, 2).double(), {"temperature": 1e-320}, "raise the temperature"),
        (torch.full((2, 2), 1e-38), {"temperature": 1e-38}, "raise the temperature"),
        (torch.zeros(2, 2), {"temperature": 0.0}, "temperature"),
        (torch.zeros(2, 2), {"temperature": -1.0}, "temperature"),
        (torch.zeros(2, 2), {"temperature": math.inf}, "temperature"),
        (torch.zeros(2, 2), {"temperature": math.nan}, "temperature"),
        (torch.zeros(2, 2), {"temperature": torch.ones(2)}, r"shape \(2,\)"),
        (torch.zeros(2, 2), {"tolerance": 0.0}, "tolerance"),
        (torch.zeros(2, 2), {"max_iterations": 0}, "max_iterations"),
        (torch.zeros(2, 2), {"gradient": "none"}, "'none'"),
        (torch.zeros(4, 2, 2), {"initial_scaling": torch.zeros(2)}, r"\(4, 2\).*\(2,\)"),
        (torch.zeros(2, 2), {"initial_scaling": torch.tensor([0.0, math.nan])}, "initial_scaling.*nan"),
    ],
)
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_errors(scores: Tensor, arguments: dict[str, object], message: str, gradient: str) -> None:
    with pytest.raises(AssignmentError, match=rf"(?s)Expected .*{message}"):
        sinkhorn(scores, **{"gradient": gradient, **arguments})


def test_small_matrices_against_all_permutations() -> None:
    """At low temperature the score of P is the best of all permutations."""
    scores = random_scores(5, 5, seed=4)
    best = max(float(scores[range(5), list(p)].sum()) for p in itertools.permutations(range(5)))
    assert float((sinkhorn(scores, 1e-3).matrix * scores).sum()) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_start_that_leads_nowhere_is_left_for_one_that_does(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.rand(2, 16, 4, generator=generator)
    scores = factors[0] @ factors[1].T * 1e5
    found = sinkhorn(scores, 1.0, tolerance=1e-4, initial_scaling=torch.zeros(16))
    assert found.converged
    assert float(found.marginal_error) < 1e-4
    exact = sinkhorn(scores.double(), 1.0, tolerance=1e-9).matrix
    torch.testing.assert_close(found.matrix.double(), exact, rtol=0, atol=0.05)
