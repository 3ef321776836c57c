"""Tables: means, spreads and the lead, by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from experiments.compare_methods.table import FIGURES, across_settings, lead, printable, readable, summarise


def row(method: str, barrier: float, repaired: float = 0.5) -> dict[str, Any]:
    """A row in which all but the barriers are one."""
    figures = {**dict.fromkeys(FIGURES.values(), 1.0), "test_barrier": barrier, "repaired_barrier": repaired}
    accuracy = 1 - barrier / 10
    return {"method": method, "relative_change": barrier * 1e-7, "endpoint_accuracy": accuracy, **figures}


ROWS = [
    row("naive", 2.0),
    row("ours", 0.1, 0.6),
    row("naive", 1.0),
    row("ours", 0.3, 0.2),
    row("Sinkhorn l2", 0.01),
]


def test_means_and_deviations_over_pairs() -> None:
    naive, ours, l2 = summarise(ROWS)
    assert (naive["test_barrier"], naive["pairs"]) == (1.5, 2)
    assert ours["test_barrier_sd"] == pytest.approx(statistics.stdev([0.1, 0.3]))
    assert l2["test_barrier_sd"] is None
    assert naive["relative_change"] == pytest.approx(2e-7)
    assert readable([ours])[0]["test barrier"] == "0.200 ± 0.141"


def test_the_lead_is_over_peers_and_not_over_our_own_variants() -> None:
    (line,) = lead({"MLP": summarise(ROWS)})
    assert line["peers"] == 1
    assert line["barrier: best peer"] == "1.500 (naive)"
    assert line["barrier: ours"] == "0.200 (ours)"
    assert line["barrier: ratio"] == "0.13"
    assert line["barrier, REPAIR: ratio"] == "0.80"
    assert line["networks' accuracy"] == "85.0 %"


def test_lines_of_unequal_columns_are_printed() -> None:
    table = printable([{"setting": "one"}, {"setting": "two", "ours": 0.1}], "unequal")
    assert [column.header for column in table.columns] == ["setting", "ours"]
    assert list(table.columns[1].cells) == ["–", "0.1"]


def test_methods_by_settings() -> None:
    tables = {"one": summarise(ROWS), "two": summarise(ROWS[:1])}
    lines = across_settings(tables, "test_barrier")
    assert [line["method"] for line in lines] == ["naive", "ours", "Sinkhorn l2"]
    assert [line["two"] for line in lines] == ["2.000", "–", "–"]
