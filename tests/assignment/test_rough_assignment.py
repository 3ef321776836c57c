"""The rough assignment is a permutation, exact where rows want columns of their own, and close where they do not."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from sinkhorn_rebasin.assignment.assignment_potentials import rough_assignment, sweeping_potentials


def test_of_noise_it_is_a_permutation_within_a_few_hundredths_of_the_best() -> None:
    scores = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    found = rough_assignment(scores, sweeping_potentials(scores))
    assert found.sort().values.tolist() == list(range(300))
    rows, columns = linear_sum_assignment(scores.numpy(), maximize=True)
    best = float(scores[rows, columns].sum())
    assert 0.96 * best <= float(scores[torch.arange(300), found].sum()) <= best + 1e-3


def test_a_planted_permutation_is_found_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    units, order = torch.randn(64, 20, generator=generator), torch.randperm(64, generator=generator)
    scores = units @ units[order].T
    found = rough_assignment(scores, sweeping_potentials(scores))
    assert torch.equal(order[found], torch.arange(64))
