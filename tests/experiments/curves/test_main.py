from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.curves.__main__ import QUESTION
from experiments.curves.training import connected, short
from sinkhorn_rebasin import PathEvaluation
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 10, learning_rate: 0.01}
held_out: 50
seeds: [[0, 1]]
checkpoints: [0, 5, 20]
points: 5
rate: 0.1
alternation_steps: 5
match_images: 200
recipe: {steps: 10, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 5, points: 3}
"""


def test_curves_begin_as_segments_and_are_trained_until_they_are_connected(tmp_path: Path) -> None:
    (pair,) = answered(QUESTION, TINY, tmp_path)["pairs"]
    raw, aligned = pair["curves"]["as they are"], pair["curves"]["aligned"]
    assert aligned[0]["barrier"] < raw[0]["barrier"]
    assert raw[-1]["barrier"] < raw[0]["barrier"]
    assert [checkpoint["step"] for checkpoint in raw] == [0, 5, 20][: len(raw)]
    assert len(raw) == 3 or raw[-1]["barrier"] <= 0
    in_turn = pair["curves"]["in turn"]
    assert in_turn[0]["step"] == 5
    assert in_turn[0]["losses"][0] == pytest.approx(raw[0]["losses"][0])


def test_a_curve_is_connected_by_its_accuracy_and_its_loss() -> None:
    positions, low = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.9, 1.0])
    good = torch.tensor([0.9, 0.899, 0.95])
    assert connected(PathEvaluation(positions, low, good), 0.003)
    assert not connected(PathEvaluation(positions, low, good - torch.tensor([0.0, 0.1, 0.0])), 0.003)
    assert not connected(PathEvaluation(positions, 2 - low, good), 0.003)
    assert abs(short(PathEvaluation(positions, low, good)) - 0.001) < 1e-6
