"""Learned maps are elements of their groups, each that of its own parameters."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import expm

from sinkhorn_rebasin.permutations import Group
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.maps import inside_complement
from sinkhorn_rebasin.rebasin.learned_maps import LearnedMaps

SYMMETRIES = (
    ContinuousSymmetry(Group("stream", 6), "orthogonal", (), fixes_ones=True),
    ContinuousSymmetry(Group("turned", 5), "orthogonal", ()),
    ContinuousSymmetry(Group("queries", 5, 3, "heads"), "linear", ()),
    ContinuousSymmetry(Group("mixed", 5, 2, "heads"), "linear", ()),
    ContinuousSymmetry(Group("narrow", 4), "linear", ()),
)


def learned() -> LearnedMaps:
    torch.manual_seed(0)
    maps = LearnedMaps(ContinuousSpec(SYMMETRIES), {}).double()
    for parameter in maps.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return maps


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda one: one.group.name)
def test_a_map_is_the_exponential_of_its_parameters(symmetry: ContinuousSymmetry) -> None:
    maps, name = learned(), symmetry.group.name
    tangent = dict(maps.named_parameters())
    (matrix,) = (value.detach() for key, value in tangent.items() if key.split(".")[-1] == name)
    found = maps()[name].detach()
    assert found.shape == (*symmetry.group.shape, symmetry.group.size)
    turns = symmetry.kind == "orthogonal"
    expected = torch.from_numpy(expm((matrix - matrix.mT if turns else matrix).numpy()))
    if symmetry.fixes_ones:
        assert torch.allclose(found.sum(1), torch.ones(6).double())
        found = inside_complement(found)
    assert torch.allclose(found, expected, atol=1e-12)


def test_exponentials_of_one_size_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    exponential = torch.linalg.matrix_exp
    monkeypatch.setattr(torch.linalg, "matrix_exp", lambda m: shapes.append(tuple(m.shape)) or exponential(m))
    maps = learned()
    maps()
    assert sorted(shapes) == [(1, 4, 4), (7, 5, 5)]
    (gradient,) = torch.autograd.grad(
        maps()["mixed"].sum(), [dict(maps.named_parameters())["mixtures.mixed"]]
    )
    assert bool(gradient.any(-1).any(-1).all())
