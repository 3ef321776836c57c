from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.reporting.receipts import read_receipt
from experiments.taxonomy.__main__ import main
from experiments.taxonomy.cells import connectivity, linear_cka
from sinkhorn_rebasin import PathEvaluation

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
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    main([str(file), "--out", str(tmp_path), "--cache", str(tmp_path / "nets")])
    metrics = read_receipt(tmp_path)["metrics"]
    cells = metrics["cells"]
    assert [(cell["width"], cell["batch size"]) for cell in cells] == [(4, 50), (16, 50)]
    assert cells[1]["aligned, segment"] > cells[1]["raw, segment"]
    assert cells[1]["raw"] > cells[1]["raw, segment"]
    poor = metrics["shares"]["poorly connected"]
    assert poor["raw, segment"] == sum(cell["raw, segment"] < 0 for cell in cells)
    assert (tmp_path / "taxonomy.png").is_file()


def test_connectivity_is_of_the_point_that_differs_most() -> None:
    positions = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert connectivity(PathEvaluation(positions, torch.tensor([1.0, 0.5, 3.0, 2.0, 1.0]))) == -2.0
    assert connectivity(PathEvaluation(positions, torch.tensor([1.0, 0.25, 1.5, 1.0, 1.0]))) == 0.75


def test_similarity_is_that_of_centred_kernels() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 3, generator=draw), torch.randn(12, 4, generator=draw)
    center = torch.eye(12, dtype=torch.float64) - 1 / 12
    k, m = (center @ (t.double() @ t.double().T) @ center for t in (x, y))
    expected = (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected))
