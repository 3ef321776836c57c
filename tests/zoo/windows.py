"""Networks that slide windows, write into memory piece by piece, or multiply more than two things."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise, slots

IMAGE = noise(2, 2, 6, 6)


def rotated(layers: Function, x: Tensor) -> Tensor:
    """Pairs of hidden units as complex numbers, turned by an angle that depends on the position."""
    pairs = torch.view_as_complex(layers.a(x).unflatten(-1, (-1, 2)))
    angles = torch.arange(float(x.shape[1]))[:, None].expand(-1, pairs.shape[-1])
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles))
    return layers.b(turned.flatten(-2))


def codebook(name: str, codes: int) -> Case:
    """Distances to so many codes: above 25 rows PyTorch takes another operation for them."""
    return Case(
        name,
        lambda: Function(
            lambda net, x: net.c(torch.cdist(net.a(x), net.codes)),
            a=nn.Linear(3, 4),
            codes=nn.Parameter(torch.randn(codes, 4)),
            c=nn.Linear(codes, 2),
        ),
        noise(6, 3),
        ((4, 1), (codes, 1)),
        (slots("a.weight 0", "a.bias 0", "codes 1"), slots("codes 0", "c.weight 1")),
    )


CASES = [
    Case(
        "image_to_columns",
        lambda: Function(
            lambda net, x: net.b(F.unfold(net.a(x).tanh(), 3, dilation=2, padding=1).transpose(1, 2)),
            a=nn.Conv2d(2, 4, 1),
            b=nn.Linear(36, 2),
        ),
        IMAGE,
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1 x 9"),),
    ),
    Case(
        "columns_to_image",
        lambda: Function(
            lambda net, x: net.b(F.fold(F.unfold(net.a(x), 3, stride=2).tanh(), (6, 6), 3, stride=2)),
            a=nn.Conv2d(2, 4, 1),
            b=nn.Conv2d(4, 2, 1),
        ),
        IMAGE,
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1"),),
    ),
    Case(
        "windows_of_a_signal",
        lambda: Function(
            lambda net, x: net.b(net.a(x).unfold(1, 3, 2).amax(-1)), a=nn.Linear(3, 4), b=nn.Linear(4, 2)
        ),
        noise(2, 7, 3),
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1"),),
    ),
    Case(
        "windows_over_units",
        lambda: Function(
            lambda net, x: net.b(net.a(x).unfold(1, 2, 1).amax(-1)), a=nn.Linear(3, 4), b=nn.Linear(3, 2)
        ),
        noise(6, 3),
        None,
    ),
    Case(
        "bilinear",
        lambda: Function(
            lambda net, x: net.c(net.b(net.a(x), net.d(x))),
            a=nn.Linear(3, 4),
            d=nn.Linear(3, 5),
            b=nn.Bilinear(4, 5, 6),
            c=nn.Linear(6, 2),
        ),
        noise(6, 3),
        ((4, 1), (5, 1), (6, 1)),
        (
            slots("a.weight 0", "a.bias 0", "b.weight 1"),
            slots("d.weight 0", "d.bias 0", "b.weight 2"),
            slots("b.weight 0", "b.bias 0", "c.weight 1"),
        ),
    ),
    codebook("distances_to_a_codebook", 5),
    codebook("distances_to_many_codes", 30),
    Case(
        "read_on_a_grid",
        lambda: Function(
            lambda net, x: net.b(
                F.grid_sample(net.a(x), net.grid.expand(2, -1, -1, -1), align_corners=False)
            ),
            a=nn.Conv2d(2, 4, 1),
            b=nn.Conv2d(4, 2, 1),
            grid=torch.rand(1, 3, 3, 2),
        ),
        IMAGE,
        ((4, 1),),
    ),
    Case(
        "unpooled",
        lambda: Function(
            lambda net, x: net.b(F.max_unpool2d(*F.max_pool2d(net.a(x), 2, return_indices=True), 2)),
            a=nn.Conv2d(2, 4, 1),
            b=nn.Conv2d(4, 2, 1),
        ),
        IMAGE,
        ((4, 1),),
    ),
    Case(
        "rotated_pairs",
        lambda: Function(rotated, a=nn.Linear(3, 6), b=nn.Linear(6, 2)),
        noise(2, 5, 3),
        ((3, 1),),
        (slots("a.weight 0 x 2", "a.bias 0 x 2", "b.weight 1 x 2"),),
    ),
    Case(
        "positions_beyond_the_example",
        lambda: Function(
            lambda net, x: net.b(net.a(x) + net.places[: x.shape[1]]),
            a=nn.Linear(3, 4),
            places=nn.Parameter(torch.randn(9, 4)),
            b=nn.Linear(4, 2),
        ),
        noise(2, 5, 3),
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "places 1", "b.weight 1"),),
    ),
    Case(
        "converged_spectral_norm",
        lambda: Function(
            lambda net, x: net.b(net.a(x).tanh()),
            a=nn.Linear(3, 5),
            b=nn.utils.parametrizations.spectral_norm(nn.Linear(5, 2), n_power_iterations=50),
        ),
        noise(6, 3),
        ((5, 1),),
    ),
]
