from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.assignment.assignment_potentials import assignment_potentials, sweeping_potentials
from tests.assignment.test_sinkhorn import random_scores


@pytest.mark.parametrize("n", [1, 2, 9, 30])
def test_every_row_prefers_its_assigned_column(n: int) -> None:
    scores = random_scores(3, n, n, seed=n)
    priced = scores + assignment_potentials(scores).unsqueeze(-2)
    taken = priced.gather(-1, hard_assignment(scores).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(taken, priced.amax(-1), atol=1e-12, rtol=0)


def test_certify_optimality() -> None:
    """Feasible potentials of a matching prove it optimal: the dual value equals the primal one."""
    scores = random_scores(1, 15, 15)
    y = assignment_potentials(scores)
    dual = (scores + y.unsqueeze(-2)).amax(-1).sum() - y.sum()
    primal = scores.gather(-1, hard_assignment(scores).unsqueeze(-1)).sum()
    torch.testing.assert_close(dual, primal)


@pytest.mark.parametrize("n", [1, 40, 300])
def test_sweeping_potentials_lead_to_the_same_assignment(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    units = [torch.randn(n, 60, generator=generator) for _ in range(2)]
    scores = (units[0] @ (units[1] * torch.rand(n, 1, generator=generator)).T).double()
    y = sweeping_potentials(scores)
    expected = hard_assignment(scores)
    assert torch.equal(hard_assignment(scores, y), expected)
    assert torch.equal(hard_assignment(scores, sweeping_potentials(scores, y, sweeps=3)), expected)
    wanted = torch.bincount((scores + y).argmax(1), minlength=n).max()
    assert wanted <= torch.bincount(scores.argmax(1), minlength=n).max()


def test_sweeping_potentials_of_equal_scores_are_equal() -> None:
    assert sweeping_potentials(torch.full((5, 5), 3.0)).tolist() == [-3.0] * 5
