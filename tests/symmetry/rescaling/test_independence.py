from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin.permutations import Layout, ScaleSymmetry, Slot
from sinkhorn_rebasin.symmetry import discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.independence import independent


def test_groups_beside_each_other_keep_their_symmetries() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    spec = discover_symmetry(model, torch.randn(6, 3))
    symmetries = [
        ScaleSymmetry("0", "positive", ((Slot("0", "0.weight", (0,), Layout(1, 5)), 1),)),
        ScaleSymmetry("2", "positive", ((Slot("2", "2.weight", (0,), Layout(1, 4)), 1),)),
    ]
    assert independent(spec, symmetries) == symmetries
