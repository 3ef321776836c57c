"""Soft permutations of several re-basins in one run are those of each alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.soft_together import soft_permutations_together


def _rebasins(**options: int) -> list[SinkhornRebasin]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
            for _ in range(4)
        ]
        x = torch.randn(2, 4)
        return [
            SinkhornRebasin(nets[0], net, x, temperature=0.5, noise=0.3, tolerance=1e-6, **options)
            for net in nets[1:]
        ]


@pytest.mark.parametrize("options", [{}, {"candidates": 3}])
def test_they_and_their_gradients_are_those_of_each_alone(options: dict[str, int]) -> None:
    alone, together = _rebasins(**options), _rebasins(**options)
    matrices = [rebasin.soft_permutations() for rebasin in alone], soft_permutations_together(together)
    for rebasins, soft in zip((alone, together), matrices, strict=True):
        states = [each.rebased_state(permutations=given) for each, given in zip(rebasins, soft, strict=True)]
        sum(tensor.square().sum() for state in states for tensor in state.values()).backward()
    for one, other in zip(alone, together, strict=True):
        assert bool(one.candidates) is bool(options)
        for name in ("0", "2"):
            gradients = one.scores[name].grad, other.scores[name].grad
            torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
            assert gradients[0].abs().max() > 1e-3
            kept = [getattr(rebasin.scalings, name) for rebasin in (one, other)]
            torch.testing.assert_close(*kept, atol=1e-4, rtol=1e-3)
            assert (kept[1] != 0).any()


def test_in_eval_mode_no_scaling_is_kept() -> None:
    rebasins = [rebasin.eval() for rebasin in _rebasins()]
    soft_permutations_together(rebasins)
    assert all((scaling == 0).all() for rebasin in rebasins for scaling in rebasin.scalings.buffers())
