from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sinkhorn_rebasin as sr
from experiments.geodesics.__main__ import QUESTION
from experiments.geodesics.paths import GEODESIC, LINE, NORMALISED, paths
from experiments.models import build_model
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 10, learning_rate: 0.01}
held_out: 50
pairs: 1
points: 5
path_images: 100
match_images: 200
recipe: {steps: 10, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 5, points: 3}
"""


def test_every_path_is_measured_after_every_matching(tmp_path: Path) -> None:
    (pair,) = answered(QUESTION, TINY, tmp_path)["pairs"]
    found = {(row["matching"], row["path"]): row["test"] for row in pair["rows"]}
    assert len(found) == 15
    assert found["weight matching", LINE]["loss barrier"] < found["none", LINE]["loss barrier"]
    ends = [(row["errors"][0], row["errors"][-1]) for row in found.values()]
    assert all(end == pytest.approx(ends[0], abs=0.003) for end in ends)


def test_all_paths_join_the_same_functions_and_the_geodesic_stays_normalised() -> None:
    torch.manual_seed(0)
    reference, target = (build_model("mlp", inputs=6, widths=[5]) for _ in range(2))
    images = torch.randn(8, 6)
    spec = sr.discover_symmetry(reference, images)
    rescaling = sr.discover_rescaling(reference, spec, images, signs=False)
    found = paths(reference, target.state_dict(), spec, rescaling)
    assert list(found) == [LINE, NORMALISED, GEODESIC]
    for path in found.values():
        assert torch.allclose(path(images, at=0.0), target(images), atol=1e-5)
        assert torch.allclose(path(images, at=1.0), reference(images), atol=1e-5)

    def norms(name: str) -> torch.Tensor:
        middle = found[name].state_at(0.5)
        return torch.cat([middle["layers.0.weight"], middle["layers.0.bias"][:, None]], 1).norm(dim=1)

    assert torch.allclose(norms(GEODESIC), torch.ones(5), atol=1e-5)
    assert bool((norms(NORMALISED) < 0.99).all())
