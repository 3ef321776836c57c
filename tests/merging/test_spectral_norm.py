"""Vectors of spectral norm have no mean: a mean is shorter, and the norm that it gives too small."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import sinkhorn_rebasin as sr

INPUTS = torch.linspace(-1, 1, 40).reshape(8, 5).sin()


def networks(old: bool = False) -> list[nn.Module]:
    torch.manual_seed(0)
    normed = nn.utils.spectral_norm if old else parametrizations.spectral_norm
    return [nn.Sequential(normed(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 2)).eval() for _ in range(3)]


MERGED: dict[str, Callable[[list[nn.Module]], nn.Module]] = {
    "many": lambda nets: sr.align_many(nets, example_inputs=INPUTS, progress=False).to_model(
        nets, [0.3, 0.5, 0.2]
    ),
    "joint": lambda nets: sr.JointRebasin(nets, INPUTS).merge(),
    "pair": lambda nets: sr.SinkhornRebasin(*nets[:2], INPUTS).merge(0.4),
    "fedma": lambda nets: sr.fedma(nets, INPUTS, prior=sr.UnitPrior(gamma=1e-9)),
}


@pytest.mark.parametrize("way", MERGED)
@pytest.mark.parametrize("old", [False, True])
def test_merges_have_singular_vectors_of_length_one(way: str, old: bool) -> None:
    nets = networks(old)
    state = MERGED[way](nets).state_dict()
    vectors = [tensor for name, tensor in state.items() if name.endswith(("_u", "_v"))]
    assert len(vectors) == 2
    torch.testing.assert_close(torch.stack([vector.norm() for vector in vectors]), torch.ones(2))


def test_a_mean_has_those_of_the_largest_share_in_their_new_order() -> None:
    nets = networks()
    many = sr.match_many(nets, sr.discover_symmetry(nets[0], INPUTS))
    name = "0.parametrizations.weight.0._u"
    assert torch.equal(many.merge(nets, [0.3, 0.5, 0.2])[name], many[1].apply(nets[1])[name])


def test_paths_do_not_warn_of_them() -> None:
    first, second, _ = networks()
    path = sr.LinearPath(first, first.state_dict(), second.state_dict())
    with torch.no_grad():
        assert path.module_at(0.25)(INPUTS).isfinite().all()
