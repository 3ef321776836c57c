"""Small networks in which what is different is easily taken for the same; found among random networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise


def cropped_pixels(net: Function, x: Tensor) -> Tensor:
    """Pixels of a shuffle, of which one row and one column are cut off, so that pixels count differently."""
    return net.b(F.pixel_shuffle(net.a(x), 2)[:, :, :3, :3].tanh().flatten(2).mean(2))


def rows_chosen_by_data(net: Function, x: Tensor) -> Tensor:
    h = net.a(x)
    h = h + F.pad(h[:, :2] * torch.arange(len(x), dtype=x.dtype)[:, None], (0, 3))
    return net.b(h[h.sum(1) > h.sum(1).mean()])


def positions_of_two_axes(net: Function, x: Tensor) -> Tensor:
    h = net.a(x).flatten(2)
    return net.b(torch.cat([h, (h + net.places).tanh()], 1).flatten(1))


def twice_concatenated(net: Function, x: Tensor) -> Tensor:
    both = torch.cat([x, x.sin()], 1)
    return net.b(net.a(torch.cat([both, both.tanh()], 1)).relu())


def expert_without_tokens(net: Function, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 5, dtype=x.dtype)
    for number, one in enumerate((net.a, net.b)):
        token, _ = torch.where((net.router(x).argmax(1, keepdim=True) * 0) == number)
        out = out.index_add(0, token, one(x[token]))
    return net.c(out.tanh())


CASES = [
    Case(
        "concatenated_with_itself_times_a_parameter",
        lambda: Function(
            lambda net, x: net.b(torch.cat([h := net.a(x), net.scale * h], 1)),
            a=nn.Linear(3, 5),
            b=nn.Linear(10, 2),
            scale=nn.Parameter(torch.ones(5)),
        ),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "cropped_pixels",
        lambda: Function(cropped_pixels, a=nn.Conv2d(2, 8, 1), b=nn.Linear(2, 2)),
        noise(2, 2, 2, 2),
        ((2, 1),),
    ),
    Case(
        "rows_chosen_by_data",
        lambda: Function(rows_chosen_by_data, a=nn.Linear(3, 5), b=nn.Linear(5, 2)),
        noise(6, 3),
        None,
    ),
    Case(
        "positions_of_two_axes",
        lambda: Function(
            positions_of_two_axes,
            a=nn.Conv2d(2, 3, 1),
            b=nn.Linear(24, 2),
            places=nn.Parameter(torch.ones(4)),
        ),
        noise(2, 2, 2, 2),
        ((3, 1),),
    ),
    Case(
        "twice_concatenated",
        lambda: Function(twice_concatenated, a=nn.Linear(12, 5), b=nn.Linear(5, 2)),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "expert_without_tokens",
        lambda: Function(
            expert_without_tokens,
            a=nn.Linear(3, 5),
            b=nn.Linear(3, 5),
            router=nn.Linear(3, 2),
            c=nn.Linear(5, 2),
        ),
        noise(6, 3),
        ((5, 1),),
    ),
]
