"""Networks that look up rows and places by data, many samples, heads or groups at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise


def bag(net: Function, ids: Tensor) -> Tensor:
    rows = net.table.index_select(0, ids.flatten()).view(*ids.shape, -1)
    return net.b(net.a(rows).relu().sum(1))


def bag_on_columns(net: Function, ids: Tensor) -> Tensor:
    return net.b(net.table.index_select(1, ids.reshape(-1)).T.relu())


def selected_by_a_view(net: Function, x: Tensor) -> Tensor:
    order = net.scores(x).argsort(-1)[0]
    return net.b(net.a(x).relu().index_select(1, order[::2].contiguous().view(-1)))


def deformable(heads: int, size: int, dims: int = 2):
    def run(net: Function, image: Tensor, query: Tensor) -> Tensor:
        batch = len(image)
        values = net.values(image).reshape(batch * heads, size, *image.shape[2:])
        grid = net.places(query).tanh().reshape(batch * heads, *[1] * dims, dims)
        read = F.grid_sample(values, grid, align_corners=False).reshape(batch, heads * size)
        return net.b(read)

    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    return lambda: Function(
        run,
        values=convolution(2, heads * size, 1),
        places=nn.Linear(5, heads * dims),
        b=nn.Linear(heads * size, 2),
    )


def affine(net: Function, image: Tensor, query: Tensor) -> Tensor:
    batch = len(image)
    values = net.values(image).reshape(batch * 4, 3, *image.shape[2:])
    turn = net.turn(query).reshape(batch * 4, 2, 3)
    grid = F.affine_grid(turn, [batch * 4, 3, 2, 2], align_corners=False)
    return net.b(F.grid_sample(values, grid, align_corners=False).mean((2, 3)).reshape(batch, 12))


def shared_grid(net: Function, x: Tensor) -> Tensor:
    grid = torch.linspace(-1, 1, 6).view(1, 1, 3, 2).expand(len(x), 1, 3, 2).to(x)
    return net.b(F.grid_sample(net.a(x).relu(), grid, align_corners=False).mean((2, 3)))


def images(*shape: int):
    return lambda: {"image": torch.randn(2, 2, *shape), "query": torch.randn(2, 5)}


CASES = [
    Case(
        "rows_selected_by_data",
        lambda: Function(bag, table=nn.Parameter(torch.randn(6, 5)), a=nn.Linear(5, 7), b=nn.Linear(7, 2)),
        lambda: torch.arange(6)[None],
        ((5, 1), (7, 1)),
    ),
    Case(
        "columns_selected_by_data",
        lambda: Function(bag_on_columns, table=nn.Parameter(torch.randn(6, 5)), b=nn.Linear(6, 2)),
        lambda: torch.arange(5)[None],
        ((6, 1),),
    ),
    Case(
        "units_selected_by_a_view_of_an_order",
        lambda: Function(selected_by_a_view, scores=nn.Linear(3, 8), a=nn.Linear(3, 8), b=nn.Linear(4, 2)),
        noise(5, 3),
        (),
    ),
    Case("deformable_heads", deformable(4, 3), images(6, 6), ((4, 1), (3, 4))),
    Case("deformable_volumes", deformable(3, 2, dims=3), images(3, 4, 5), ((3, 1), (2, 3))),
    Case(
        "affine_heads",
        lambda: Function(affine, values=nn.Conv2d(2, 12, 1), turn=nn.Linear(5, 24), b=nn.Linear(12, 2)),
        images(5, 5),
        ((4, 1), (3, 4)),
    ),
    Case(
        "sampled_at_the_same_places",
        lambda: Function(shared_grid, a=nn.Conv2d(2, 8, 1), b=nn.Linear(8, 2)),
        noise(2, 2, 5, 5),
        ((8, 1),),
    ),
]
