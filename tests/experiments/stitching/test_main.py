from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.models import build_model
from experiments.stitching.__main__ import QUESTION
from experiments.stitching.chains import chain, cuts, parts
from experiments.stitching.stitches import FullStitch, GroupStitch, fitted, held_loss, matched_order
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [8, 8]}
training: {epochs: 2, learning_rate: 0.01}
held_out: 50
match_images: 200
steps: 10
batch_size: 50
"""


def test_every_layer_is_stitched_by_every_stitch(tmp_path: Path) -> None:
    pair = answered(QUESTION, TINY, tmp_path)["pairs"][0]
    penalties = {row["stitch"]: row["penalties"] for row in pair["rows"]}
    assert {len(values) for values in penalties.values()} == {2}
    assert sum(penalties["full"]) < sum(penalties["as they are"])


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "count"),
    [
        ("cnn", {"channels": 1, "size": 8, "widths": [2, 3], "hidden": 4}, (1, 8, 8), 3),
        ("vgg", {"width": 0.05, "head": [5]}, (3, 32, 32), 9),
        ("resnet8", {}, (3, 32, 32), 4),
    ],
)
def test_both_parts_of_a_network_are_the_network(
    name: str, arguments: dict[str, object], shape: tuple[int, ...], count: int
) -> None:
    network, images = build_model(name, **arguments).eval(), torch.randn(2, *shape)
    assert len(cuts(network)) == count
    for cut in cuts(network):
        bottom, top = parts(network, cut)
        assert torch.equal(top(bottom(images)), network(images))


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(TypeError, match="but got Linear"):
        chain(nn.Linear(2, 2))


def test_a_planted_order_and_scales_are_stitched_exactly() -> None:
    draw = torch.Generator().manual_seed(0)
    units, order = torch.randn(200, 6, generator=draw), torch.randperm(6, generator=draw)
    scales = torch.rand(6, generator=draw) + 0.5
    stitch = GroupStitch(matched_order(units[:, order] * scales, units)).eval()
    stitch.log_scales.data = -scales.log()
    assert torch.allclose(stitch(units[:, order] * scales), units, atol=1e-6)


def test_a_fit_never_ends_worse_than_it_began() -> None:
    torch.manual_seed(0)
    top, held = nn.Linear(4, 3), [(torch.randn(40, 4), torch.randint(3, (40,)))]
    begin = FullStitch(torch.eye(4))
    wild = fitted(begin, top, held, held, steps=10, rates={"weight": 100.0})
    assert held_loss(wild, top, held) <= held_loss(begin, top, held)
    better = fitted(begin, top, held, held, steps=50, rates={"weight": 0.01})
    assert held_loss(better, top, held) < held_loss(begin, top, held)
    assert torch.equal(begin.weight.detach(), torch.eye(4))
    assert torch.equal(better.bias.detach(), torch.zeros(4))
