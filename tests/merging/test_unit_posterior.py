"""Units are assigned as the formula of the paper says, found here by trying every assignment."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError
from sinkhorn_rebasin.merging.unit_posterior import GlobalUnits, UnitPrior, assign_units


def gain(unit: Tensor, assigned: list[Tensor], prior: UnitPrior, networks: int) -> float:
    """Return the gain at a global unit that others have, written out from the paper."""
    before = sum(assigned, torch.zeros_like(unit)) / prior.sigma**2
    after = before + unit / prior.sigma**2
    precision = 1 / prior.sigma_0**2 + len(assigned) / prior.sigma**2
    told = float(after.square().sum() / (precision + 1 / prior.sigma**2) - before.square().sum() / precision)
    count = len(assigned)
    return told + 2 * math.log(count / (networks - count))


def test_a_network_goes_where_no_other_assignment_gains_more() -> None:
    torch.manual_seed(0)
    prior, networks = UnitPrior(sigma=0.7, sigma_0=1.3, gamma=2.0), 3
    first, second = torch.randn(3, 2).double(), torch.randn(3, 2).double()
    units = GlobalUnits(prior, networks, first.new_zeros(0, 2))
    places = units.assign(first, 1 / prior.sigma**2)
    assert sorted(places.tolist()) == [0, 1, 2]
    known = {int(place): unit for place, unit in zip(places, first, strict=True)}

    def worth(assignment: tuple[int, ...]) -> float:
        total = 0.0
        for unit, place in zip(second, assignment, strict=True):
            if place in known:
                total += gain(unit, [known[place]], prior, networks)
            else:
                fresh = float(
                    unit.square().sum() / prior.sigma**4 / (1 / prior.sigma_0**2 + 1 / prior.sigma**2)
                )
                total += fresh + 2 * math.log(prior.gamma / networks) - 2 * math.log(place - 2)
        return total

    best = max(itertools.permutations(range(6), 3), key=worth)
    found = units.gains(second, 1 / prior.sigma**2)
    for row, unit in enumerate(second):
        assert float(found[row, 1]) == pytest.approx(gain(unit, [known[1]], prior, networks))
    chosen = units.assign(second, 1 / prior.sigma**2)
    old = [place if place < 3 else None for place in best]
    assert [place if place < 3 else None for place in chosen.tolist()] == old


def test_permuted_units_come_together_and_others_make_new_ones() -> None:
    torch.manual_seed(0)
    base, extra = torch.randn(6, 4), 3 + torch.randn(2, 4)
    orders = [torch.randperm(6) for _ in range(3)]
    features = [base[order] for order in orders]
    features[1] = torch.cat([features[1], extra])
    places = assign_units(features, [0.2, 0.5, 0.3], UnitPrior(sigma=0.05))
    assert max(int(each.max()) for each in places) == 7
    where = torch.empty(6, dtype=torch.long)
    where[orders[0]] = places[0]
    for order, each in zip(orders, places, strict=True):
        assert torch.equal(each[:6], where[order])
    assert not set(places[1][6:].tolist()) & set(where.tolist())


def test_taking_a_network_out_leaves_what_was_before() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 2).double(), 5 + torch.randn(4, 2).double()
    units = GlobalUnits(UnitPrior(sigma=0.1), 2, first.new_zeros(0, 2))
    units.assign(first, 100.0)
    sums = units.sums.clone()
    places = units.assign(second, 50.0)
    assert len(units.counts) == 7
    units.remove(second, 50.0, places)
    torch.testing.assert_close(units.sums, sums)
    assert units.counts.tolist() == [1, 1, 1]


def test_the_limit_of_units_holds_unless_a_network_has_more_itself() -> None:
    torch.manual_seed(0)
    far = [torch.randn(4, 3) * 10 for _ in range(3)]
    free = assign_units(far, [1 / 3] * 3, UnitPrior(sigma=0.01))
    bound = assign_units(far, [1 / 3] * 3, UnitPrior(sigma=0.01, most=6))
    least = assign_units(far, [1 / 3] * 3, UnitPrior(sigma=0.01, most=2))
    assert [1 + max(int(each.max()) for each in places) for places in (free, bound, least)] == [12, 6, 4]


def test_bad_numbers_are_refused_by_name() -> None:
    for name in ("sigma", "sigma_0", "gamma", "most"):
        with pytest.raises(AssignmentError, match=f"Expected {name} to be a number above 0 but got -1"):
            UnitPrior(**{name: -1})
    with pytest.raises(AssignmentError, match="finite weights"):
        assign_units([torch.full((2, 2), math.nan)], [1.0], UnitPrior())
