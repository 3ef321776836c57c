"""The mean of more and more networks is compared within a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.many_networks.counts import accuracies, by_count, draw_by_count


def drawn(setting: str, networks: int, **accuracy: float) -> dict[str, Any]:
    """One draw, whose rows are named after their accuracies."""
    rows = {name: {"accuracy": 0.1, "repaired_accuracy": each} for name, each in accuracy.items()}
    rows["mean of outputs"] = {"accuracy": 0.9}
    return {"setting": setting, "networks": networks, "rows": rows}


def test_accuracies_are_means_over_draws_after_repair() -> None:
    found = [drawn("CNN", 8, ours=0.5), drawn("CNN", 2, ours=0.7), drawn("CNN", 2, ours=0.6)]
    assert accuracies(found, "ours") == {2: 65.0, 8: 50.0}
    assert accuracies(found, "mean of outputs") == {2: 90.0, 8: 90.0}
    assert accuracies(found, "universe") == {}


def test_the_fall_is_that_from_the_fewest_to_the_most(tmp_path: Path) -> None:
    found = [
        drawn("CNN", 8, ours=0.5),
        drawn("CNN", 2, ours=0.625, universe=0.5),
        drawn("CNN", 4, ours=0.7, universe=0.4),
        drawn("MLP", 3, ours=0.3),
        drawn("MLP", 3, ours=0.2),
    ]
    lines = {line["method"]: line for line in by_count(found, ["ours", "universe", "MergeMany"])}
    assert set(lines) == {"ours", "universe"}
    assert all(line["setting"] == "CNN" for line in lines.values())
    assert [lines["ours"][f"{count} networks"] for count in (2, 4, 8)] == ["62.5", "70.0", "50.0"]
    assert lines["ours"]["fall"] == "12.5"
    assert lines["universe"]["8 networks"] == lines["universe"]["fall"] == "–"
    draw_by_count(found[3:], ["ours"], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    draw_by_count(found, ["ours", "universe"], tmp_path / "counts.png")
    assert (tmp_path / "counts.png").is_file()
