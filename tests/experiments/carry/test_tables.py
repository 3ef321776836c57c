from __future__ import annotations

from typing import Any

import pytest

from experiments.carry.table import lead, readable, with_shares


def row(method: str, loss: float, accuracy: float, seeds: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    figures = {"new_loss": loss, "new_accuracy": accuracy, "base_loss": 0.5, "base_accuracy": 0.75}
    return {"method": method, "seeds": list(seeds), **figures}


ENDS = [row("new base", 2.0, 0.2), row("fine-tuned on all labels", 1.0, 0.6)]


def test_shares_are_of_each_pair_s_own_gap() -> None:
    second = [row("new base", 4.0, 0.2, (1, 2)), row("fine-tuned on all labels", 2.0, 0.6, (1, 2))]
    rows = with_shares([*ENDS, *second, row("as it is", 1.75, 0.3), row("as it is", 3.0, 0.5, (1, 2))])
    assert [each["share_of_loss"] for each in rows[-2:]] == pytest.approx([0.25, 0.5])
    assert [each["share_of_accuracy"] for each in rows[-2:]] == pytest.approx([0.25, 0.75])
    line = readable(rows)[-1]
    assert (line["pairs"], line["share, loss"], line["accuracy"]) == (2, "0.38", "40.0 %")


def test_the_lead_keeps_three_networks_apart_from_peers() -> None:
    losses = {
        "as it is": 2.0,
        "weight matching": 1.8,
        "functional": 1.7,
        "ours, no data": 1.5,
        "ours, learned": 1.3,
    }
    more = {"sum of logits": 1.1, "sum distilled": 1.2}
    rows = with_shares([*ENDS, *(row(name, loss, 0.3) for name, loss in {**losses, **more}.items())])
    line = lead(rows, "nets")
    assert line["best peer"] == "0.20 (weight matching)"
    assert line["functional"] == "0.30 (functional)"
    assert (line["ours, learned"], line["sum of logits, cost x 3"]) == ("0.70", "0.90")


def test_the_lead_says_which_rows_are_of_fewer_pairs() -> None:
    names = ("as it is", "weight matching", "functional", "ours, no data", "sum of logits")
    second = [row("new base", 4.0, 0.2, (1, 2)), row("fine-tuned on all labels", 2.0, 0.6, (1, 2))]
    both = [row(name, 1.5, 0.3, seeds) for name in names for seeds in ((0, 1), (1, 2))]
    line = lead(with_shares([*ENDS, *second, *both, row("ours, learned", 1.5, 0.3)]), "nets")
    assert line["ours, learned"] == "0.50 (1 of 2 pairs)"
    assert "pairs" not in line["ours, no data"]
    assert line["sum distilled"] == "–"
