from __future__ import annotations

import itertools
from itertools import permutations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.errors import AssignmentError
from tests.assignment.test_sinkhorn import random_scores


@pytest.mark.parametrize("n", [1, 2, 5])
def test_beats_every_permutation(n: int) -> None:
    scores = random_scores(2, 3, n, n, seed=n)
    indices = hard_assignment(scores)
    assert indices.shape == (2, 3, n)
    assert indices.dtype == torch.long
    for matrix, row in zip(scores.reshape(-1, n, n), indices.reshape(-1, n), strict=True):
        totals = [float(matrix[range(n), list(p)].sum()) for p in itertools.permutations(range(n))]
        assert float(matrix[range(n), row].sum()) == pytest.approx(max(totals), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_planted_permutation_in_every_dtype(dtype: torch.dtype) -> None:
    planted = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(s)) for s in range(4)])
    noise = random_scores(4, 12, 12).tanh() * 0.4
    scores = (torch.nn.functional.one_hot(planted, 12) + noise).to(dtype).requires_grad_()
    indices = hard_assignment(scores)
    assert torch.equal(indices, planted)
    assert indices.device == scores.device


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int), torch.full((2, 2), torch.nan), torch.zeros(0, 0)],
)
def test_errors(scores: torch.Tensor) -> None:
    with pytest.raises(AssignmentError, match="Expected"):
        hard_assignment(scores)


def nearly_ordered(n: int) -> torch.Tensor:
    """Scores as sorted weights give them: columns of all sizes, and hardly anything besides."""
    size = torch.linspace(1, 2, n, dtype=torch.float64)
    return torch.outer(size.flip(0), size) + 1e-3 * random_scores(n, n, seed=3)


def test_wide_scores_are_assigned_as_they_are_without_potentials() -> None:
    scores = nearly_ordered(300)
    plain = linear_sum_assignment(scores.numpy(), maximize=True)[1]
    assert hard_assignment(scores).tolist() == plain.tolist()
    potentials = random_scores(300, seed=1)
    assert hard_assignment(scores, potentials).tolist() == plain.tolist()
    batch = torch.stack([scores, scores.flip(0)])
    assert hard_assignment(batch, potentials.expand(2, -1))[1].tolist() == plain.tolist()[::-1]


@pytest.mark.parametrize(
    ("potentials", "said"), [(torch.zeros(2), "of shape"), (torch.tensor([0.0, 0, torch.inf]), "finite")]
)
def test_potentials_that_do_not_fit_are_refused(potentials: torch.Tensor, said: str) -> None:
    with pytest.raises(AssignmentError, match=f"potentials.*{said}|{said}.*potentials"):
        hard_assignment(torch.eye(3), potentials)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_rows_whose_largest_scores_lie_in_columns_of_their_own_are_assigned_them(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    order = torch.randperm(n, generator=generator)
    scores = torch.rand(3, n, n, generator=generator)
    scores[1] += 2 * torch.eye(n)[order]
    found = hard_assignment(scores)
    assert torch.equal(found[1], order)
    for one, columns in zip(scores, found, strict=True):
        best = max(float(one[range(n), list(each)].sum()) for each in permutations(range(n)))
        assert float(one[range(n), columns].sum()) == pytest.approx(best)
