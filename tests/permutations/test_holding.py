"""Tensors that are held: which units may still change places, against every exchange of two tried by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import SpecError


class MaskedLinear(nn.Linear):
    """A linear layer of some weights alone."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


def autoregressive(inputs: int = 4, hidden: int = 9) -> nn.Sequential:
    """A masked autoencoder: an output depends on the inputs before it."""
    before, unit = torch.arange(inputs), torch.arange(hidden) % (inputs - 1)
    layers = (unit[:, None] >= before, unit[:, None] >= unit, before[:, None] > unit)
    first, second, last = (MaskedLinear(mask.float()) for mask in layers)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def exchangeable(masks: Sequence[tuple[Tensor, int]]) -> set[frozenset[int]]:
    """Pairs of units whose exchange leaves every mask as it is."""
    size = masks[0][0].shape[masks[0][1]]
    pairs = set()
    for one, other in itertools.combinations(range(size), 2):
        order = list(range(size))
        order[one], order[other] = other, one
        if all(torch.equal(mask.index_select(axis, torch.tensor(order)), mask) for mask, axis in masks):
            pairs.add(frozenset((one, other)))
    return pairs


def test_units_change_places_where_their_exchange_leaves_every_mask() -> None:
    network, x = autoregressive(), torch.randn(2, 4)
    spec = sr.discover_symmetry(network, x).holding(network, "*.mask")
    first, second, last = (network[place].mask for place in (0, 2, 4))
    for weight, masks in (("0.weight", [(first, 0), (second, 1)]), ("2.weight", [(second, 0), (last, 1)])):
        parts = [slot.layout.table().ravel().tolist() for slot in spec.slots_on(weight) if slot.axes == (0,)]
        together = {frozenset(pair) for part in parts for pair in itertools.combinations(part, 2)}
        assert together == exchangeable(masks)
    assert sr.verify_symmetry(network, spec, x) < 1e-6


def test_held_tensors_stay_bit_for_bit_and_weights_move() -> None:
    network, x = autoregressive(), torch.randn(5, 4)
    spec = sr.discover_symmetry(network, x).holding(network.state_dict(), "0.mask", "2.mask", "4.mask")
    moved = autoregressive()
    drawn = sr.random_permutations(spec, generator=torch.Generator().manual_seed(0))
    moved.load_state_dict(sr.permute_state(network.state_dict(), spec, drawn))
    assert all(torch.equal(moved[place].mask, network[place].mask) for place in (0, 2, 4))
    assert not torch.equal(moved[0].weight, network[0].weight)
    torch.testing.assert_close(moved(x), network(x), atol=1e-5, rtol=1e-4)


class Attention(nn.Module):
    """Two heads of three dimensions each, after a scale of each dimension of the queries."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            y.reshape(*x.shape[:2], 2, 3).transpose(1, 2)
            for y in (self.q(x) * self.scale, self.k(x), self.v(x))
        )
        return self.o((q @ k.mT).softmax(-1).matmul(v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("scale", "heads", "inside"),
    [
        ([1.0] * 6, 1, 2),
        ([1.0] * 3 + [2.0] * 3, 0, 2),  # heads differ, dimensions inside of them do not
        ([1.0, 1.0, 3.0] * 2, 1, 1),  # values' dimensions are not scaled
    ],
)
def test_nested_groups_move_whole_or_not_at_all(scale: list[float], heads: int, inside: int) -> None:
    network, x = Attention(torch.tensor(scale)), torch.randn(2, 4, 6)
    held = sr.discover_symmetry(network, x).holding(network, "scale")
    sizes = [group.size for group in held.groups]
    assert (sizes.count(2), sizes.count(3)) == (heads, inside)
    drawn = sr.random_permutations(held, generator=torch.Generator().manual_seed(1))
    moved = sr.permute_state(network.state_dict(), held, drawn)
    assert torch.equal(moved["scale"], network.scale)
    assert sr.verify_symmetry(network, held, x) < 1e-5


def test_units_that_are_all_told_apart_are_frozen_with_the_reason() -> None:
    network = nn.Sequential(MaskedLinear(torch.eye(4)), nn.ReLU(), nn.Linear(4, 2))
    spec = sr.discover_symmetry(network, torch.randn(2, 4)).holding(network, "0.mask")
    assert not spec.groups
    assert {frozen.reason for frozen in spec.frozen} >= {"units are told apart by 0.mask"}


def test_names_of_no_tensor_are_refused() -> None:
    network = autoregressive()
    spec = sr.discover_symmetry(network, torch.randn(2, 4))
    with pytest.raises(SpecError, match=r"Expected layers to hold but no tensor matches '2\.masks'"):
        spec.holding(network, "2.masks")
    with pytest.raises(SpecError, match=r"shape"):
        spec.holding(autoregressive(hidden=7), "2.mask")
