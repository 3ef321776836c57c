"""Tables and the picture are made of the cells alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.what_pays.picture import draw, panels_of
from experiments.what_pays.table import full_table, gains, lead_table


def cells(accuracy: bool) -> list[dict[str, Any]]:
    """Return two groups of one setting; a tuned member and a tuned midpoint differ by 2, then 4 points."""
    found = []
    for group, (member, midpoint) in enumerate(((0.90, 0.92), (0.91, 0.95))):

        def row(way: str, budget: str, value: float) -> dict[str, Any]:
            figures = {"error": 1 - value, "accuracy": value} if accuracy else {"error": 1 - value}
            return {"way": way, "budget": budget, "cost": 1, **figures}

        rows = [
            row("best member", "no data", 0.8),
            row("weight matching", "no data", 0.85),
            row("learned", "50 unlabelled", 0.86),
            row("distilled into a member", "50 unlabelled", member),
            row("distilled into the matched midpoint", "50 unlabelled", midpoint),
        ]
        found.append({"setting": "tiny", "figure": "test loss", "group": group, "rows": rows})
    return found


def test_gains_are_paired_and_higher_is_better() -> None:
    assert {group: round(gain, 6) for group, gain in gains(cells(True), "tiny", "50 unlabelled").items()} == {
        0: 2.0,
        1: 4.0,
    }
    errors = gains(cells(False), "tiny", "50 unlabelled")
    assert {group: round(gain, 6) for group, gain in errors.items()} == {0: 0.02, 1: 0.04}


def test_the_lead_has_a_line_a_budget_and_the_spread_over_groups() -> None:
    blind, few = lead_table(cells(True))
    assert (blind["budget"], blind["matched"], blind["learned"]) == ("no data", "85.0 ± 0.0", "–")
    assert (few["learned"], few["tuned: a member"]) == ("86.0 ± 0.0", "90.5 ± 0.7")
    assert (few["groups"], lead_table(cells(True)[:1])[1]["groups"]) == (2, 1)
    assert few["gain of a midpoint"] == "+3.0 ± 1.4"


def test_all_ways_have_a_line_with_a_column_a_budget() -> None:
    lines = {line["way"]: line for line in full_table(cells(True))}
    assert lines["learned"]["50 unlabelled"] == "86.0 ± 0.0"
    assert lines["learned"]["no data"] == "–"
    assert lines["learned"]["figure"] == "test accuracy, %"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(cells(True), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 3000


def test_panels_of_one_setting_lie_side_by_side() -> None:
    rows = [{"budget": f"50 {kind}", "way": "learned", "error": 1.0} for kind in ("labelled", "unlabelled")]
    found = [{"setting": name, "group": 0, "rows": rows[first:]} for name, first in (("one", 1), ("two", 0))]
    assert panels_of(found) == [("two", "unlabelled"), ("two", "labelled"), ("one", "unlabelled")]
