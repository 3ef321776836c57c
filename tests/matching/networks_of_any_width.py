"""Families of networks by one width, to carry weights from one width to another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import noise, randomise
from tests.zoo.case import Function


def concatenated(net: Function, x: Tensor) -> Tensor:
    """One layer's outputs twice, with the inputs and another layer's between them."""
    first, second = net.a(x).tanh(), net.b(x).relu()
    return net.c(torch.cat([first, x, second, first], 1))


def residual(net: Function, x: Tensor) -> Tensor:
    """One block with a norm in front, added to the stream it reads."""
    stream = net.first(x)
    stream = stream + net.out(net.inner(net.norm(stream)).relu())
    return net.last(stream)


# Networks by one width, with the inputs they take and the tensors whose outputs are on the second axis.
FAMILIES: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Tensor], tuple[str, ...]]] = {
    "mlp": (
        lambda n: nn.Sequential(
            nn.Linear(5, n), nn.ReLU(), nn.Linear(n, n + n // 2), nn.Tanh(), nn.Linear(n + n // 2, 3)
        ),
        noise(7, 5),
        (),
    ),
    "conv": (
        lambda n: nn.Sequential(
            *(nn.Conv2d(2, n, 3), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, n, 3), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * n, 3)),
        ),
        noise(4, 2, 8, 8),
        (),
    ),
    "concatenated": (
        lambda n: Function(
            concatenated, a=nn.Linear(4, n), b=nn.Linear(4, n // 2), c=nn.Linear(2 * n + 4 + n // 2, 3)
        ),
        noise(6, 4),
        (),
    ),
    "residual": (
        lambda n: Function(
            residual,
            **{"first": nn.Linear(4, n), "norm": nn.LayerNorm(n), "inner": nn.Linear(n, 2 * n)},
            **{"out": nn.Linear(2 * n, n), "last": nn.Linear(n, 3)},
        ),
        noise(6, 4),
        (),
    ),
    "lstm": (lambda n: nn.Sequential(Lstm(3, n), nn.Linear(n, 2)), noise(2, 5, 3), ()),
    "transposed": (
        lambda n: nn.Sequential(
            nn.ConvTranspose2d(1, n, 3), nn.ReLU(), nn.ConvTranspose2d(n, n, 2), nn.Tanh(), nn.Conv2d(n, 2, 1)
        ),
        noise(2, 1, 4, 4),
        ("0.weight", "2.weight"),
    ),
    "depthwise": (
        lambda n: nn.Sequential(
            *(nn.Conv2d(2, n, 3), nn.ReLU(), nn.ConvTranspose2d(n, n, 2, groups=n), nn.Tanh()),
            nn.Conv2d(n, 2, 1),
        ),
        noise(2, 2, 5, 5),
        (),
    ),
    "embedding": (
        lambda n: nn.Sequential(nn.Embedding(9, n), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 3)),
        lambda: torch.arange(9),
        ("0.weight",),
    ),
}


class Lstm(nn.LSTM):
    """An LSTM that returns its outputs alone."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


def mlp(*widths: int) -> nn.Module:
    """Linear layers of these widths, each with a ReLU behind it."""
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def double_network(name: str, width: int, seed: int = 0) -> tuple[nn.Module, Tensor, PermutationSpec]:
    """A network of a family in float64, its inputs and its spec."""
    make, make_inputs, _ = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, inputs = randomise(make(width)).double().eval(), make_inputs()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return model, inputs, discover_symmetry(model, inputs)
