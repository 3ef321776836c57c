"""Networks one of whose axes is a grid: its units are all the pairs, triples, ... of other units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


class Grid(nn.Module):
    """A hidden layer viewed as a grid, of which a layer each mixes the axes given, one after the other."""

    def __init__(self, lengths: Sequence[int], mixed: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.lengths, self.mixed = tuple(lengths), tuple(mixed)
        self.first = nn.Linear(3, math.prod(lengths))
        left = list(lengths)
        self.mixers = nn.ModuleList()
        for axis, width in zip(mixed, widths, strict=True):
            self.mixers.append(nn.Linear(left[axis], width))
            left[axis] = width
        self.last = nn.Linear(math.prod(left), 2)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.first(x).relu().unflatten(-1, self.lengths)
        for axis, mixer in zip(self.mixed, self.mixers, strict=True):
            grid = mixer(grid.movedim(axis + 1, -1)).relu().movedim(-1, axis + 1)
        return self.last(grid.flatten(1))


def sums_of_biases(net: Function, x: Tensor) -> Tensor:
    grid = net.first(x).unflatten(-1, (3, 4, 5))
    return net.last((grid + net.p[:, None, None] + net.q[:, None] + net.r).relu().flatten(1))


def tucker(net: Function, x: Tensor) -> Tensor:
    kernel = torch.einsum("abc,ia,jb,kc->ijk", net.core, net.inputs, net.heads, net.units)
    hidden = torch.einsum("ni,ijk->njk", net.first(x).relu(), kernel).relu()
    return net.last(hidden.flatten(1))


def grids_in_heads(net: Function, x: Tensor) -> Tensor:
    """Heads of their own weights, in each a grid whose rows and columns are mixed."""
    grid = net.first(x).relu().unflatten(-1, (2, 3, 4))
    grid = torch.einsum("nhab,hac->nhcb", grid, net.rows).relu()
    grid = torch.einsum("nhcb,hbd->nhcd", grid, net.columns).relu()
    return net.last(grid.flatten(1))


def outer_products(net: Function, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    return net.last(torch.einsum("ni,nj,nk->nijk", net.a(x), net.b(x), net.c(x)).flatten(1))


def lines_through_a_grid(net: Function, x: Tensor) -> Tensor:
    """Sums over the first axis of a grid and sums over the last: only the grid tells the middle one."""
    grid = net.first(x).relu().unflatten(-1, (3, 4, 5))
    planes = net.planes(grid.square().mean(1).flatten(1)), net.others(grid.square().mean(3).flatten(1))
    mixed = torch.einsum("nabc,ad,ce->nbde", grid, net.rows, net.columns)
    return torch.cat([*planes, mixed.square().mean(1).relu().flatten(1)], 1)


def summed_grid(net: Function, x: Tensor) -> Tensor:
    """A grid whose sums over the last axis are a grid that is mixed."""
    grid = net.first(x).relu().unflatten(-1, (3, 4, 5)).mean(3)
    grid = torch.einsum("nab,ac,bd->ncd", grid, net.rows, net.columns)
    return net.last(grid.relu().flatten(1))


def lambdas(net: Function, x: Tensor) -> Tensor:
    """A lambda layer (Bello, 2021) with several key and value maps."""
    x = net.first(x).relu()
    queries = net.q(x).unflatten(-1, (3, 4))
    keys, values = net.k(x).unflatten(-1, (2, 4)).softmax(1), net.v(x).unflatten(-1, (2, 5))
    return net.last(torch.einsum("bnhk,bmuk,bmuv->bnhv", queries, keys, values).flatten(2))


CASES = [
    Case(
        "grid_of_two",
        lambda: Grid((3, 4), (0, 1), (5, 6)),
        noise(4, 3),
        ((3, 1), (4, 1), (5, 1), (6, 1)),
    ),
    Case(
        "grid_of_three",
        lambda: Grid((3, 4, 5), (2, 1, 0), (8, 7, 6)),
        noise(4, 3),
        ((3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)),
    ),
    Case(
        "grid_of_four",
        lambda: Grid((2, 3, 4, 5), (1, 3, 0, 2), (2, 3, 4, 5)),
        noise(4, 3),
        ((2, 1), (3, 1), (4, 1), (5, 1)) * 2,
    ),
    Case(
        "grid_of_three_equal",
        lambda: Grid((3, 3, 3), (0, 2, 1, 0), (3, 3, 3, 3)),
        noise(4, 3),
        ((3, 1),) * 7,
    ),
    Case(
        "grid_with_a_bias_for_each_axis",
        lambda: Function(
            sums_of_biases,
            first=nn.Linear(3, 60),
            p=weights(3),
            q=weights(4),
            r=weights(5),
            last=nn.Linear(60, 2),
        ),
        noise(4, 3),
        ((3, 1), (4, 1), (5, 1)),
    ),
    Case(
        "tucker_core",
        lambda: Function(
            tucker,
            first=nn.Linear(3, 6),
            core=weights(2, 3, 4),
            inputs=weights(6, 2),
            heads=weights(5, 3),
            units=weights(7, 4),
            last=nn.Linear(35, 2),
        ),
        noise(4, 3),
        ((2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)),
    ),
    Case(
        "grids_in_heads",
        lambda: Function(
            grids_in_heads,
            first=nn.Linear(3, 24),
            rows=weights(2, 3, 5),
            columns=weights(2, 4, 6),
            last=nn.Linear(60, 2),
        ),
        noise(4, 3),
        ((2, 1), (3, 2), (4, 2), (5, 2), (6, 2)),
    ),
    Case(
        "outer_product_of_three",
        lambda: Function(
            outer_products,
            first=nn.Linear(3, 6),
            a=nn.Linear(6, 2),
            b=nn.Linear(6, 3),
            c=nn.Linear(6, 4),
            last=nn.Linear(24, 2),
        ),
        noise(4, 3),
        ((2, 1), (3, 1), (4, 1), (6, 1)),
    ),
    Case(
        "axis_told_by_lines_through_a_grid",
        lambda: Function(
            lines_through_a_grid,
            first=nn.Linear(3, 60),
            planes=nn.Linear(20, 2),
            others=nn.Linear(12, 2),
            rows=weights(3, 2),
            columns=weights(5, 2),
        ),
        noise(4, 3),
        ((3, 1), (4, 1), (5, 1)),
    ),
    Case(
        "grid_of_sums",
        lambda: Function(
            summed_grid,
            first=nn.Linear(3, 60),
            rows=weights(3, 6),
            columns=weights(4, 7),
            last=nn.Linear(42, 2),
        ),
        noise(4, 3),
        ((3, 1), (4, 1), (5, 1), (6, 1), (7, 1)),
    ),
    Case(
        "lambda_layer",
        lambda: Function(
            lambdas,
            first=nn.Linear(3, 6),
            q=nn.Linear(6, 12, bias=False),
            k=nn.Linear(6, 8, bias=False),
            v=nn.Linear(6, 10, bias=False),
            last=nn.Linear(15, 2),
        ),
        noise(2, 6, 3),
        ((2, 1), (3, 1), (4, 1), (5, 1), (6, 1)),
    ),
]
