"""What curves say: the goal, when each side is there, and both ways to time the published implementation."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.time_to_distance.__main__ import figures, table_of

PUBLISHED = {
    "10.0": [[0.0, 0, 9.0], [2.0, 2, 5.0], [4.0, 4, 1.0], [6.0, 6, 1.0]],
    "100.0": [[0.0, 0, 9.0], [1.0, 2, 1.0], [3.0, 4, 7.0], [5.0, 6, 8.0]],
}


def of(ours: list[list[float]]) -> dict[str, Any]:
    return figures({"published": PUBLISHED, "ours": {"10.0": ours}})


def test_a_rate_that_passes_the_goal_and_leaves_it_counts_apart() -> None:
    row = of([[0.0, 0, 9.0], [0.25, 2, 6.0], [0.5, 4, 0.9]])
    assert row["goal"] == 1.0
    assert (row["published, rate"], row["published, seconds"]) == ("100.0", 1.0)
    assert row["published, seconds at the rate that ends there"] == 4.0
    assert (row["ratio"], row["ratio to the rate that ends there"]) == (2.0, 8.0)
    assert row == figures(row)


def test_a_goal_that_is_not_reached_has_no_ratio() -> None:
    row = of([[0.0, 0, 9.0], [0.5, 2, 6.0]])
    assert row["ours, seconds"] is None
    assert row["ratio"] is None
    assert row["ratio to the rate that ends there"] is None
    (line,) = table_of({"net": row})
    assert line["ours, s (rate)"] == "not reached (10)"
    assert line["ratio"] == ""


def test_a_start_that_is_at_the_goal_does_not_count() -> None:
    assert of([[0.0, 0, 1.0], [0.5, 2, 1.0]])["ours, seconds"] == pytest.approx(0.5)
