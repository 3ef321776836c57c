"""Rotary heads turn in every way that queries and keys are laid out in their matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_continuous, discover_symmetry
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from tests.symmetry.continuous.small_networks import Attention, Block, Language, Packed

WORDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])
PAIRS = ((0, 2), (1, 3))
UNITS = np.arange(4)


def rows(starts: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Places of the units, by the first row of every copy of every head."""
    return (np.array(starts)[:, None, :] + UNITS[None, :, None]).tolist()


LAYOUTS = {
    "behind each other": (Packed, rows([[0], [4]]), rows([[8], [12]])),
    "side by side": (partial(Packed, side_by_side=True), rows([[0], [12]]), rows([[4], [16]])),
    "key heads shared by two": (partial(Packed, heads=4), rows([[0, 4], [8, 12]]), rows([[16], [20]])),
    "one key head": (partial(Packed, heads=4, keys=1), rows([[0, 4, 8, 12]]), rows([[16]])),
    "one key head in a matrix of its own": (
        partial(Attention, heads=4, keys=1, rotary=True),
        rows([[0, 4, 8, 12]]),
        rows([[0]]),
    ),
}


def found_in(model: nn.Module) -> ContinuousSpec:
    return discover_continuous(model, discover_symmetry(model, WORDS), WORDS)


def turned_by_hand(matrix: Tensor, places: list[list[list[int]]], angles: Tensor, scale: float) -> None:
    """Turn each pair of rows of each head by its angle, in place."""
    for head, units in enumerate(places):
        for number, (one, other) in enumerate(PAIRS):
            cos, sin = (scale * f(float(angles[head, number])) for f in (math.cos, math.sin))
            first, second = matrix[units[one]].clone(), matrix[units[other]].clone()
            matrix[units[one]], matrix[units[other]] = (
                cos * first - sin * second,
                sin * first + cos * second,
            )


@pytest.mark.parametrize("name", LAYOUTS)
def test_pairs_turn_however_queries_and_keys_are_packed(name: str) -> None:
    torch.manual_seed(0)
    attention, queries, keys = LAYOUTS[name]
    model = Language(Block(attention(), nn.RMSNorm)).double()
    (rotary,) = (one for one in found_in(model).symmetries if one.kind == "rotary")
    assert rotary.pairs == PAIRS
    assert [(slot.layout.table().tolist(), sign) for slot, sign in rotary.exponents] == [
        (queries, 1),
        (keys, -1),
    ]
    assert rotary.group.shape == ((2, 4) if len(keys) == 2 else (4,))

    with torch.no_grad():
        before, angles = model(WORDS), 6 * torch.rand(len(queries), 2)
        for (slot, sign), places in zip(rotary.exponents, (queries, keys), strict=True):
            turned_by_hand(model.get_parameter(slot.tensor).data, places, angles, 2.0**sign)
        assert float((before - model(WORDS)).abs().max()) < 1e-12 * float(before.abs().max())
        turned_by_hand(model.get_parameter(rotary.exponents[0][0].tensor).data, queries, angles, 1.0)
        assert float((before - model(WORDS)).abs().max()) > 1e-3 * float(before.abs().max())


class Skewed(Packed):
    """Each position turns all units of a head at once, in planes that lie along no pair of them."""

    def placed(self, x: Tensor) -> Tensor:
        upper = torch.arange(16.0).sin().reshape(4, 4).triu(1).to(x)
        turns = torch.matrix_exp(torch.arange(x.shape[-2]).to(x)[:, None, None] * (upper - upper.T))
        return (turns @ x[..., None])[..., 0]


def test_heads_whose_pairs_do_not_turn_alone_say_so() -> None:
    torch.manual_seed(0)
    continuous = found_in(Language(Block(Skewed(), nn.RMSNorm)))
    assert not [one for one in continuous.symmetries if one.kind == "rotary"]
    (told,) = (reason for name, reason in continuous.reasons.items() if name.endswith(" rotary"))
    assert told == "no pair of units inside of its heads turns alone: they stay"
    assert told in str(continuous)
