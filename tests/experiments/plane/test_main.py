from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.models import build_model
from experiments.models.family import batches_of
from experiments.plane.__main__ import main
from experiments.plane.cost import loop_of_forwards
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin.connectivity import evaluate_state
from sinkhorn_rebasin.landscape import Plane

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 5, learning_rate: 0.01}
held_out: 50
points: 3
plane_images: 50
match_images: 100
recipe: {steps: 10, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 5, points: 3}
"""


def test_a_plane_is_measured_drawn_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    options = [str(file), "--out", str(tmp_path), "--cache", str(tmp_path / "nets")]
    main(options)
    rows = {row["target"]: row for row in read_receipt(tmp_path)["metrics"]["segments"]}
    assert rows["aligned"]["barrier"] < rows["as it is"]["barrier"]
    assert rows["aligned"]["test loss at the ends"] == pytest.approx(
        rows["as it is"]["test loss at the ends"], rel=1e-3
    )
    assert (tmp_path / "plane.png").is_file()


def test_the_loop_measures_what_the_plane_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plane = Plane.through({name: build_model("resnet20").eval() for name in ("a", "b", "c")})
    data = batches_of(torch.randn(4, 3, 32, 32), torch.randint(10, (4,)), 2)
    losses = loop_of_forwards(plane, data, 2)
    direct = evaluate_state(build_model("resnet20").eval(), plane.state_at(1.0, -1.0), data)[0]
    assert losses[1] == pytest.approx(direct, rel=1e-4)
    with pytest.raises(SystemExit):
        main(["--cost", "--images", "2", "--points", "2", "--out", str(tmp_path)])
    main(["--cost", "--images", "2", "--points", "3", "--out", str(tmp_path)])
    rows = read_receipt(tmp_path)["metrics"]["cost"]
    assert rows[0]["of the loop"] == 1.0
    assert rows[1]["points measured"] == 4 + 9
