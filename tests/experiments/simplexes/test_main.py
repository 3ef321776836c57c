from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from experiments.simplexes.__main__ import QUESTION
from experiments.simplexes.ensembles import row
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 10, learning_rate: 0.01}
train_images: 400
held_out: 50
test_images: 200
triples: 1
epochs: 10
samples: 5
ways: [{rate: 0.000001}, {rate: 0.05}]
match_images: 100
recipe: {steps: 4, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 2, points: 3}
"""


def test_every_ensemble_of_three_networks_is_measured(tmp_path: Path) -> None:
    (triple,) = answered(QUESTION, TINY, tmp_path)["triples"]
    found = {each["ensemble"]: each for each in triple["rows"]}
    assert len(found) == 8
    assert found["three networks"]["networks"] == 3
    members = {name: each["error of a member"] for name, each in found.items()}
    assert members["their simplex, aligned"] < members["their simplex, as they are"]
    assert members["with learned vertices, as they are"] < members["their simplex, as they are"]
    assert found["a simplex around each"]["networks"] == 3
    assert members["a simplex around each"] < members["their simplex, as they are"]
    assert found["with learned vertices, as they are"]["way"] == "rate 0.05, annealed, volume 1e-06"


def test_probabilities_are_averaged_and_not_votes() -> None:
    class Says(nn.Module):
        def __init__(self, scores: list[float]) -> None:
            super().__init__()
            self.scores = torch.tensor([scores])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.scores.expand(len(images), -1)

    members = [Says([0.1, 0.0]), Says([0.1, 0.0]), Says([0.0, 9.0])]
    found = row("all", members, [(torch.zeros(4, 1), torch.ones(4, dtype=torch.long))])
    assert (found["error"], found["networks"]) == (0.0, 3)
    assert abs(found["error of a member"] - 2 / 3) < 1e-9
