from __future__ import annotations

import math
from itertools import pairwise

import pytest

from sinkhorn_rebasin.assignment.temperature import constant, cosine, geometric, linear
from sinkhorn_rebasin.errors import AssignmentError

SCHEDULES = [geometric, linear, cosine]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.1), (0.3, 2.0), (0.7, 0.7)])
def test_ends_are_exact_clamped_and_monotone(schedule, start: float, end: float) -> None:
    curve = schedule(start, end)
    assert curve(0.0) == curve(-3.0) == start
    assert curve(1.0) == curve(5.0) == end
    values = [curve(i / 50) for i in range(51)]
    direction = math.copysign(1, end - start) if end != start else 0
    assert all((b - a) * direction >= -1e-15 for a, b in pairwise(values))
    assert all(min(start, end) - 1e-15 <= v <= max(start, end) + 1e-15 for v in values)


def test_shapes() -> None:
    assert geometric(1.0, 0.01)(0.25) == pytest.approx(10**-0.5)
    assert linear(1.0, 0.2)(0.25) == pytest.approx(0.8)
    assert cosine(1.0, 0.0 + 0.2)(0.5) == pytest.approx(0.6)
    assert cosine(1.0, 0.2)(0.25) == pytest.approx(0.2 + 0.4 * (1 + math.sqrt(0.5)))
    assert {constant(0.4)(p) for p in (-1, 0, 0.3, 1, 2)} == {0.4}


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("schedule", [*SCHEDULES, lambda a, b: constant(min(a, b, key=lambda v: v == 1.0))])
def test_errors(schedule, bad: float) -> None:
    with pytest.raises(AssignmentError, match="positive"):
        schedule(bad, 1.0)
    with pytest.raises(AssignmentError, match="positive"):
        schedule(1.0, bad)


def test_progress_must_be_a_number() -> None:
    with pytest.raises(AssignmentError, match="nan"):
        linear(1.0, 0.1)(math.nan)
