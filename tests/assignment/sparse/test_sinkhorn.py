"""The sparse operator against the dense one, of the matrix that it stands for."""

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import sinkhorn, sparse_sinkhorn
from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning


def problem(
    n: int, k: int, dtype: torch.dtype = torch.float64, blocks: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Random scores and candidates."""
    generator = torch.Generator().manual_seed(10 * n + k)
    candidates = torch.rand(*blocks, n, n, generator=generator).argsort(-1)[..., :k]
    return torch.randn(candidates.shape, generator=generator, dtype=dtype), candidates


def written_out(scores: Tensor, candidates: Tensor, floor: float = 0.0) -> Tensor:
    n = scores.shape[-2]
    return scores.new_full((*scores.shape[:-1], n), floor).scatter(-1, candidates, scores)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (6, 1), (40, 39), (40, 6), (230, 16)])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_it_is_the_dense_operator_with_its_gradient(n: int, k: int, temperature: float) -> None:
    scores, candidates = problem(n, k)
    scores.requires_grad_()
    dense = written_out(scores.detach(), candidates).requires_grad_()
    settings = {"tolerance": 1e-12, "max_iterations": 5000}
    found = sparse_sinkhorn(scores, candidates, temperature, **settings).dense()
    expected = sinkhorn(dense, temperature, **settings).matrix
    assert torch.allclose(found, expected, atol=1e-9)
    weights = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert scores.grad is not None
    assert dense.grad is not None
    assert torch.allclose(scores.grad, dense.grad.gather(-1, candidates), atol=1e-9)


def test_single_precision_is_equal_to_a_millionth() -> None:
    scores, candidates = problem(60, 60, torch.float32)
    scores.requires_grad_()
    dense = written_out(scores.detach(), candidates).requires_grad_()
    found, expected = sparse_sinkhorn(scores, candidates, 0.3).dense(), sinkhorn(dense, 0.3).matrix
    assert float((found - expected).detach().abs().max()) < 1e-6
    found.square().sum().backward()
    expected.square().sum().backward()
    assert scores.grad is not None
    assert dense.grad is not None
    assert float((scores.grad - dense.grad.gather(-1, candidates)).abs().max()) < 1e-6


def test_each_block_is_a_matrix_of_its_own() -> None:
    scores, candidates = problem(12, 3, blocks=(2, 2))
    whole = sparse_sinkhorn(scores, candidates, 0.2, tolerance=1e-12)
    for block in ((0, 0), (1, 0)):
        alone = sparse_sinkhorn(scores[block], candidates[block], 0.2, tolerance=1e-12)
        assert torch.allclose(whole.dense()[block], alone.dense(), atol=1e-10)


def test_another_floor_moves_the_other_pairs() -> None:
    scores, candidates = problem(9, 2)
    found = sparse_sinkhorn(scores, candidates, 0.5, floor=-3.0, tolerance=1e-12).dense()
    assert torch.allclose(found, sinkhorn(written_out(scores, candidates, -3.0), 0.5, tolerance=1e-12).matrix)


def test_columns_that_no_row_names_are_filled_all_the_same() -> None:
    scores = torch.full((8, 1), 5.0, dtype=torch.float64)
    found = sparse_sinkhorn(scores, torch.zeros(8, 1, dtype=torch.long), 0.01).dense()
    assert torch.allclose(found.sum(0), torch.ones(8, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(found, torch.full((8, 8), 0.125, dtype=torch.float64), atol=1e-5)


def test_a_warm_start_is_at_the_solution() -> None:
    scores, candidates = problem(80, 8)
    first = sparse_sinkhorn(scores, candidates, 0.2, tolerance=1e-8)
    again = sparse_sinkhorn(scores, candidates, 0.2, tolerance=1e-7, initial_scaling=first.column_scaling)
    assert first.iterations > 3
    assert again.iterations == 0


def test_the_diagnosis_has_no_gradient() -> None:
    scores, candidates = problem(6, 2)
    result = sparse_sinkhorn(scores.requires_grad_(), candidates)
    assert result.values.requires_grad
    assert result.left.requires_grad
    assert result.right.requires_grad
    assert not result.column_scaling.requires_grad
    assert not result.marginal_error.requires_grad


def test_a_matrix_of_its_width_is_never_made() -> None:
    n = 60_000  # 14 GB as a matrix
    scores = torch.ones(n, 1, requires_grad=True)
    found = sparse_sinkhorn(scores, torch.arange(n).roll(1)[:, None], tolerance=1e-3)
    found.values.sum().backward()
    assert found.converged
    assert scores.grad is not None
    assert bool((scores.grad > 0).all())


def test_the_watcher_gets_potentials_that_price_every_pair() -> None:
    scores, candidates = problem(10, 4)
    scores.requires_grad_()
    told: list[tuple[Tensor, Tensor]] = []
    result = sparse_sinkhorn(
        scores, candidates, 0.5, tolerance=1e-12, watcher=lambda p, q: told.append((p, q))
    )
    weights = torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (result.dense() * weights).sum().backward()
    ((p, q),) = told
    priced = result.dense().detach() * (weights - p[:, None] - q)
    assert float(priced.sum(0).abs().max()) < 1e-9
    assert float(priced.sum(1).abs().max()) < 1e-9


def test_too_few_iterations_are_told() -> None:
    with pytest.warns(ConvergenceWarning, match="Expected a marginal error"):
        assert not sparse_sinkhorn(*problem(30, 5), 0.05, max_iterations=1).converged


def test_what_does_not_belong_together_is_refused() -> None:
    scores, candidates = problem(4, 2)
    for wrong, message in (
        ((scores.half(), candidates), "float32 or float64"),
        ((scores, candidates[:, :1]), "long candidates of shape"),
        ((scores, candidates + 3), "between 0 and 3"),
        ((scores, candidates, 0.0), "temperature"),
        ((scores * torch.nan, candidates), "finite scores"),
    ):
        with pytest.raises(AssignmentError, match=message):
            sparse_sinkhorn(*wrong)
    with pytest.raises(AssignmentError, match="initial_scaling of shape"):
        sparse_sinkhorn(scores, candidates, initial_scaling=torch.zeros(3))


def test_the_gradient_that_comes_in_is_left_alone() -> None:
    scores, candidates = problem(9, 3)
    scores.requires_grad_()
    matrix = sparse_sinkhorn(scores, candidates)
    given = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = given.clone()
    slopes = [torch.autograd.grad(matrix.values, scores, given, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(given, before)
    assert torch.equal(*slopes)
