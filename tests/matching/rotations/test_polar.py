from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.matching.rotations.polar import best_rotation, rotation_gain
from sinkhorn_rebasin.permutations import Group
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.permutations.maps import complement_of_ones

FREE = ContinuousSymmetry(Group("a", 4), "orthogonal", ())
FIXING = ContinuousSymmetry(Group("a", 4), "orthogonal", (), fixes_ones=True)
ROTARY = ContinuousSymmetry(Group("a", 4), "rotary", (), pairs=((0, 2), (1, 3)))


def turned_a_little(rotation: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """A neighbor of the rotation among the maps of the symmetry."""
    skew = torch.randn(4, 4, dtype=torch.float64)
    skew = skew - skew.T
    if symmetry.kind == "rotary":
        skew = torch.zeros(4, 4, dtype=torch.float64)
        skew[0, 2], skew[1, 3] = torch.randn(2)
        skew = skew - skew.T
    if symmetry.fixes_ones:
        basis = complement_of_ones(4)
        skew = basis @ basis.T @ skew @ basis @ basis.T
    return torch.linalg.matrix_exp(0.1 * skew) @ rotation


def test_no_neighbor_gains_more() -> None:
    torch.manual_seed(0)
    similarity = torch.randn(3, 4, 4, dtype=torch.float64)
    for symmetry in (FREE, FIXING, ROTARY):
        best = best_rotation(similarity, symmetry)
        torch.testing.assert_close(best @ best.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
        gain = rotation_gain(similarity, symmetry)
        for _ in range(20):
            other = torch.stack([turned_a_little(block, symmetry) for block in best])
            assert bool(((other * similarity).sum((-2, -1)) <= gain + 1e-12).all())


def test_ones_and_pairs_are_kept() -> None:
    torch.manual_seed(0)
    similarity = torch.randn(4, 4, dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(best_rotation(similarity, FIXING) @ ones, ones)
    outside = best_rotation(similarity, ROTARY)[[0, 0, 1, 1], [1, 3, 0, 2]]
    assert float(outside.abs().max()) == 0
