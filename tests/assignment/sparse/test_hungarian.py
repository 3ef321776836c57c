"""Hard assignments of wide matrices against SciPy's of the whole matrix."""

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import hard_assignment, hungarian, sparse_assignment
from sinkhorn_rebasin.assignment.sparse.wide_hungarian import wide_assignment
from tests.assignment.sparse.test_sinkhorn import problem, written_out


def total(matrix: Tensor, columns: Tensor) -> float:
    return float(matrix.gather(-1, columns.unsqueeze(-1)).sum())


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (3, 2), (6, 6), (7, 3), (40, 4)])
def test_candidates_are_assigned_as_the_whole_matrix_is(n: int, k: int, shift: float) -> None:
    scores, candidates = problem(n, k)
    scores = scores + shift  # negative: some rows must avoid candidates below the floor
    whole, found = written_out(scores, candidates), sparse_assignment(scores, candidates)
    assert found.sort().values.tolist() == list(range(n))
    assert total(whole, found) == pytest.approx(total(whole, hard_assignment(whole)), abs=1e-9)


def test_rows_that_want_one_column_share_what_is_left() -> None:
    found = sparse_assignment(torch.tensor([[1.0], [3.0], [2.0]]), torch.zeros(3, 1, dtype=torch.long))
    assert found[1] == 0
    assert found.sort().values.tolist() == [0, 1, 2]


def test_every_block_is_assigned() -> None:
    scores, candidates = problem(8, 3, blocks=(2,))
    found = sparse_assignment(scores, candidates)
    for block in range(2):
        assert torch.equal(found[block], sparse_assignment(scores[block], candidates[block]))


@pytest.mark.parametrize("planted", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 17, 90])
def test_wide_matrices_are_assigned_exactly(n: int, planted: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    ours = torch.randn(n, 20, generator=generator) * torch.randn(n, 1, generator=generator).exp()
    theirs = ours.flip(0) if planted else torch.randn(n, 20, generator=generator)
    scores = ours @ theirs.T
    found = wide_assignment(scores)
    assert found.sort().values.tolist() == list(range(n))
    assert total(scores.double(), found) == pytest.approx(
        total(scores.double(), hard_assignment(scores)), rel=1e-6
    )


def test_equal_scores_have_a_permutation() -> None:
    assert wide_assignment(torch.zeros(6, 6)).sort().values.tolist() == list(range(6))


def test_potentials_change_the_way_and_not_the_end() -> None:
    scores = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    for potentials in (torch.zeros(30), 5 * torch.randn(30, generator=torch.Generator().manual_seed(1))):
        assert torch.equal(wide_assignment(scores, potentials), hard_assignment(scores))


def test_very_wide_matrices_never_become_double(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    expected = hard_assignment(scores)
    monkeypatch.setattr(hungarian, "VERY_WIDE", 40)
    monkeypatch.setattr(hungarian, "_costs", None)
    assert torch.equal(hard_assignment(scores), expected)
