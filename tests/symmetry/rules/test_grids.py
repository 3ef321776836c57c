"""Random networks whose hidden axis is a grid of two to four groups, worked on axis by axis in random order."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.symmetry.witness import difference
from tests.zoo.case import randomise

# What is done, along which axis, and the number of the weight it takes.
Step = tuple[str, int, int]


class RandomGrid(nn.Module):
    """A hidden layer viewed as a grid, then layers, sums, norms and biases along some of its axes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.lengths = [draw.choice([2, 3, 4]) for _ in range(draw.choice([2, 3, 3, 4]))]
        self.first = nn.Linear(3, math.prod(self.lengths))
        self.weights = nn.ParameterList()
        self.steps: list[Step] = []
        left = list(self.lengths)
        for _ in range(draw.randint(1, 5)):
            axis = draw.randrange(len(left))
            kind = draw.choice(["mix", "mix", "look", "sum", "bias", "plane", "softmax", "norm"])
            if kind == "sum" and len(left) > 1:
                del left[axis]
            shape = [left[axis] if other == axis else 1 for other in range(len(left))]
            if kind in ("mix", "look"):
                shape = [draw.choice([3, 5]), left[axis]]
                left[axis] = shape[0] if kind == "mix" else left[axis]
            elif kind == "plane":
                shape = [length if draw.random() < 0.7 else 1 for length in left]
            self.steps.append((kind, axis + 1, len(self.weights)))
            if kind in ("mix", "look", "bias", "plane"):
                self.weights.append(nn.Parameter(torch.ones(shape)))
        self.last = nn.Linear(math.prod(left), 2)

    def forward(self, x: Tensor) -> Tensor:
        grid, seen = self.first(x).tanh().unflatten(-1, self.lengths), 0
        for kind, axis, number in self.steps:
            weight = self.weights[number] if number < len(self.weights) else None
            if kind == "mix":
                grid = (grid.movedim(axis, -1) @ weight.T).tanh().movedim(-1, axis)
            elif kind == "look":
                seen = seen + (grid.movedim(axis, -1) @ weight.T).square().flatten(1).sum(1, keepdim=True)
            elif kind in ("bias", "plane"):
                grid = (grid + weight).tanh()
            elif kind == "softmax":
                grid = grid.softmax(axis)
            elif kind == "norm":
                grid = grid / (1 + grid.square().sum(axis, keepdim=True))
            elif grid.dim() > 2:
                grid = grid.sum(axis).tanh()
        return self.last(grid.flatten(1)) + seen


@pytest.mark.parametrize("ten", range(12))
def test_what_is_claimed_of_random_grids_holds(ten: int) -> None:
    free = 0
    for seed in range(10 * ten, 10 * ten + 10):
        torch.manual_seed(seed)
        network, x = randomise(RandomGrid(seed)).double().eval(), torch.randn(4, 3, dtype=torch.float64)
        spec = discover_symmetry(network, x)
        state = permute_state(network.state_dict(), spec, random_permutations(spec))
        assert difference(network, state, torch.randn_like(x)) < 1e-10, f"{seed}\n{spec}"
        free += any(slot.tensor == "first.weight" for slot in spec.slots)
    assert free >= 8


def orders(lengths: list[int]) -> list[list[int]]:
    """A few orders in which the axes are mixed, some of them twice."""
    draw = random.Random(0)
    return [[*draw.sample(range(len(lengths)), len(lengths)), draw.randrange(len(lengths))] for _ in range(4)]


class Mixed(RandomGrid):
    """A grid whose axes are mixed in an order that is given."""

    def __init__(self, lengths: list[int], order: list[int]) -> None:
        super().__init__(0)
        self.lengths, self.first = lengths, nn.Linear(3, math.prod(lengths))
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.ones(lengths[axis], lengths[axis])) for axis in order]
        )
        self.steps = [("mix", axis + 1, number) for number, axis in enumerate(order)]
        self.last = nn.Linear(math.prod(lengths), 2)


@pytest.mark.parametrize("lengths", [[3, 4], [3, 3, 2], [2, 3, 4], [2, 2, 2, 3]], ids=str)
def test_every_axis_of_a_grid_is_a_group_before_and_after_each_layer(lengths: list[int]) -> None:
    for order in orders(lengths):
        spec = discover_symmetry(Mixed(lengths, order), torch.randn(4, 3))
        expected = Counter([*lengths, *(lengths[axis] for axis in order)])
        assert Counter(group.size for group in spec.groups) == expected, order
        assert all(group.blocks == 1 for group in spec.groups)
