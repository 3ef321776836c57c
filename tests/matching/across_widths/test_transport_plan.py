from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning
from sinkhorn_rebasin.matching.across_widths import transport_plan as transport_plan_module
from sinkhorn_rebasin.matching.across_widths.transport_plan import transport_plan, unit_distances


def random_cost(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 6), (6, 4), (5, 7), (1, 3)])
def test_no_plan_with_these_marginals_costs_less(n: int, m: int) -> None:
    cost = random_cost(n, m)
    plan = transport_plan(cost)
    share = plan / plan.sum()
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    best = linprog(cost.numpy().ravel(), A_eq=sums, b_eq=np.repeat([1 / n, 1 / m], [n, m]))
    assert float((share * cost).sum()) == pytest.approx(best.fun)
    assert torch.equal(plan, plan.round())
    assert len(plan.sum(0).unique()) == len(plan.sum(1).unique()) == 1


def test_entropy_leads_from_the_exact_plan_to_an_even_one() -> None:
    cost = random_cost(3, 6)
    exact = transport_plan(cost)
    sharp = transport_plan(cost, 0.01)
    assert float((sharp * cost).sum()) == pytest.approx(float((exact * cost).sum()), rel=0.01)
    even = torch.full_like(exact, float(exact.mean()))
    assert torch.allclose(transport_plan(cost, 1e6), even, atol=1e-5)
    blurred = transport_plan(cost, 0.3)
    assert torch.allclose(blurred.sum(0), exact.sum(0), atol=1e-4)
    assert torch.allclose(blurred.sum(1), exact.sum(1), atol=1e-4)


def test_regularization_is_in_units_of_the_cost() -> None:
    cost = random_cost(3, 5)
    assert torch.allclose(transport_plan(cost, 0.2), transport_plan(1000 * cost, 0.2))


def test_equal_units_are_carried_at_any_regularization() -> None:
    plan = transport_plan(torch.zeros(2, 3, dtype=torch.float64), 0.5)
    assert torch.allclose(plan, plan.mean().expand(2, 3))


def test_a_plan_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_plan_module, "_ITERATIONS", 30)
    with pytest.warns(ConvergenceWarning, match="marginal error"):
        transport_plan(random_cost(30, 41), 1e-5)


@pytest.mark.parametrize("regularization", [0.0, -1.0, float("inf"), float("nan")])
def test_a_regularization_that_is_none_is_refused(regularization: float) -> None:
    with pytest.raises(AssignmentError, match="regularization"):
        transport_plan(random_cost(2, 3), regularization)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AssignmentError, match="units' weights"):
        unit_distances(torch.zeros(2, 3), torch.tensor([[0.0, float("nan"), 1.0]]))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match="pip install POT"):
        transport_plan(random_cost(2, 2))
