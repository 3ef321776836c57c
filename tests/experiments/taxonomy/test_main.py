from __future__ import annotations

from pathlib import Path

from experiments.taxonomy.__main__ import QUESTION
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64}
training: {epochs: 10, learning_rate: 0.01}
train_images: 400
held_out: 50
widths: [4, 16]
batch_sizes: [50]
layers: 1
curve_steps: 5
points: 5
path_images: 100
match_images: 100
recipe: {steps: 4, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 2, points: 3}
poor: 0.0
"""


def test_every_cell_is_connected_raw_and_aligned(tmp_path: Path) -> None:
    metrics = answered(QUESTION, TINY, tmp_path)
    cells = metrics["cells"]
    assert [(cell["width"], cell["batch size"]) for cell in cells] == [(4, 50), (16, 50)]
    assert cells[1]["aligned, segment"] > cells[1]["raw, segment"]
    assert cells[1]["raw"] > cells[1]["raw, segment"]
    assert all(0 < cell["similarity"] <= 1 for cell in cells)
    poor = metrics["shares"]["poorly connected"]
    assert poor["raw, segment"] == sum(cell["raw, segment"] < 0 for cell in cells)
