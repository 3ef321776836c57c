"""Plain and learned steps take turns, both learn, and the receipt holds every time."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from experiments.models.transformer import ViT
from experiments.reporting.receipts import read_receipt
from experiments.step_cost import every_symmetry, turns
from sinkhorn_rebasin import SinkhornRebasin


def test_both_steps_move_what_they_learn() -> None:
    torch.manual_seed(0)
    networks = [ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=12) for _ in range(3)]
    batch = torch.randn(6, 3, 8, 8), torch.randint(10, (6,))
    rebasin = SinkhornRebasin(*networks[:2], batch[0][:2], symmetry="full")
    steps = (
        (turns.plain_step(networks[2], batch), networks[2]),
        (every_symmetry.learned_step(rebasin, batch), rebasin),
    )
    for step, learned in steps:
        before = [each.detach().clone() for each in learned.parameters() if each.requires_grad]
        step()
        after = [each for each in learned.parameters() if each.requires_grad]
        assert before
        assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_steps_take_turns() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in ("plain", "learned")}
    times = turns.alternating(steps, 3)  # type: ignore[arg-type]
    assert order[2:] == ["plain", "learned", "learned", "plain", "plain", "learned"]
    assert {name: len(each) for name, each in times.items()} == {"plain": 3, "learned": 3}


def test_the_command_leaves_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every_symmetry, "BATCH", 4)
    sizes = ["--width", "8", "--depth", "1", "--heads", "2", "--rounds", "3"]
    every_symmetry.main([*sizes, "--out", str(tmp_path)])
    rows = read_receipt(tmp_path)["metrics"]["rows"]
    assert rows.keys() == every_symmetry.WAYS.keys()
    for row in rows.values():
        medians = {name: statistics.median(times) for name, times in row["all"].items()}
        assert row["learned / plain"] == pytest.approx(medians["learned"] / medians["plain"])
