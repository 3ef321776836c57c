from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import sinkhorn_rebasin as sr
from experiments.averaging.__main__ import QUESTION
from experiments.averaging.methods import average
from experiments.models import build_model
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [32]}
training: {epochs: 0, learning_rate: 0.01, batch_size: 50}
held_out: 50
steps: [0, 5]
match_images: 200
recipe: {steps: 20, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 10, keep: midpoint, points: 3}
"""


def test_initialisations_are_averaged_by_every_method(tmp_path: Path) -> None:
    found = answered(QUESTION, TINY, tmp_path)["pairs"][0]["curves"]
    assert {len(curve) for curve in found.values()} == {2}
    assert found["ours, learned before training"][0] > max(0.15, found["random permutation"][0])
    assert found["the networks"][1] > found["the networks"][0]


def test_the_average_of_a_network_and_its_permuted_copy_is_the_network() -> None:
    torch.manual_seed(0)
    network, images = build_model("mlp", inputs=6, widths=[5]), torch.randn(40, 6)
    tests = [(images, network(images).argmax(1))]
    spec = sr.discover_symmetry(network, images[:2])
    moved = sr.Alignment(sr.random_permutations(spec, generator=torch.Generator().manual_seed(1)), spec)
    target: nn.Module = build_model("mlp", inputs=6, widths=[5])
    target.load_state_dict(moved.apply(network))
    assert average(network, target, moved.invert(), tests, tests) == 1.0
    assert average(network, target, sr.Alignment(sr.identity_permutations(spec), spec), tests, tests) < 1.0
