"""Linear maps: plain, tied, reparametrised, factored, generated, multilinear."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.random_networks.plan import LAST, SEQUENCE, VECTOR, kind
from tests.zoo.case import Function

Shape = tuple[int, ...]
BIAS = (True, False)


def free(*shape: int) -> nn.Parameter:
    """A parameter of a shape."""
    return nn.Parameter(torch.randn(shape))


def normed(layer: nn.Module, how: str) -> nn.Module:
    """Weight or spectral norm, as parametrisations or in the older form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if how == "weight_norm":
            return parametrizations.weight_norm(layer)
        if how == "weight_norm_of_inputs":
            return parametrizations.weight_norm(layer, dim=1)
        if how == "weight_norm_of_all":
            return parametrizations.weight_norm(layer, dim=None)
        if how == "old_weight_norm":
            return nn.utils.weight_norm(layer)
        if how == "old_spectral_norm":
            return nn.utils.spectral_norm(layer)
        return parametrizations.spectral_norm(layer)


NORMED = (
    *("weight_norm", "weight_norm_of_inputs", "weight_norm_of_all", "old_weight_norm"),
    *("spectral_norm", "old_spectral_norm"),
)


@kind("linear", LAST, bias=BIAS)
def linear(shape: Shape, width: int, bias: bool) -> nn.Module:
    return nn.Linear(shape[-1], width, bias=bias)


@kind("linear", LAST, bias=BIAS)
def mlp(shape: Shape, width: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(shape[-1], width, bias=bias), nn.GELU(), nn.Linear(width, shape[-1], bias=bias)
    )


@kind("tied", LAST)
def tied_autoencoder(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: F.linear(torch.tanh(net.a(x)), net.a.weight.t()), a=nn.Linear(shape[-1], width)
    )


@kind("tied", LAST)
def shared_linear(shape: Shape, width: int) -> nn.Module:
    layer = nn.Linear(shape[-1], shape[-1])
    return nn.Sequential(layer, nn.Tanh(), layer)


@kind("tied", LAST)
def tied_weights(shape: Shape, width: int) -> nn.Module:
    first, second = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


@kind("weight_norm spectral_norm", LAST, how=NORMED)
def normed_linear(shape: Shape, width: int, how: str) -> nn.Module:
    return normed(nn.Linear(shape[-1], width), how)


@kind("linear", LAST)
def low_rank(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: net.a(x) + x @ net.down @ net.up,
        a=nn.Linear(shape[-1], width),
        down=free(shape[-1], 2),
        up=free(2, width),
    )


@kind("linear", LAST)
def merged_weight(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: F.linear(x, net.weight + net.up @ net.down),
        weight=free(width, shape[-1]),
        up=free(width, 3),
        down=free(3, shape[-1]),
    )


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.t()) / 2


@kind("tied", LAST)
def symmetric_weight(shape: Shape, width: int) -> nn.Module:
    layer = nn.Linear(shape[-1], shape[-1])
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return layer


@kind("bilinear", LAST)
def bilinear(shape: Shape, width: int) -> nn.Module:
    c = shape[-1]
    return Function(lambda net, x: net.b(x, net.a(x).tanh()), a=nn.Linear(c, 3), b=nn.Bilinear(c, 3, width))


@kind("outer", LAST, symmetric=(False, True))
def outer_product(shape: Shape, width: int, symmetric: bool) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.a(x), net.a(x) if symmetric else net.b(x)
        return net.c((a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2))

    c = shape[-1]
    return Function(run, a=nn.Linear(c, 3), b=nn.Linear(c, 3 if symmetric else 2), c=nn.LazyLinear(width))


@kind("einsum", LAST)
def chain_of_three(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: torch.einsum("...i,ij,jk->...k", x, net.a, net.b),
        a=free(shape[-1], 3),
        b=free(3, width),
    )


@kind("einsum", LAST)
def trilinear(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: torch.einsum("...i,...j,ijk->...k", x.tanh(), net.a(x), net.b),
        a=nn.Linear(shape[-1], 3),
        b=free(shape[-1], 3, width),
    )


@kind("einsum", LAST)
def block_diagonal(shape: Shape, width: int) -> nn.Module:
    g = 2 if shape[-1] % 2 == 0 else 1
    return Function(
        lambda net, x: torch.einsum("...gi,gio->...go", x.unflatten(-1, (g, -1)), net.a).flatten(-2),
        a=free(g, shape[-1] // g, 3),
    )


@kind("outer", LAST)
def kronecker(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: net.c(net.l(x) @ torch.kron(net.a, net.b)),
        l=nn.Linear(shape[-1], 6),
        a=free(2, 3),
        b=free(3, 2),
        c=nn.Linear(6, width),
    )


@kind("outer", VECTOR)
def generated_weight(shape: Shape, width: int) -> nn.Module:
    c = shape[-1]
    return Function(
        lambda net, x: torch.bmm(net.a(x).view(-1, width, c), x[:, :, None])[:, :, 0],
        a=nn.Linear(c, width * c),
    )


@kind("linear", SEQUENCE)
def mixer(shape: Shape, width: int) -> nn.Module:
    """Tokens mixed by an MLP over positions, then channels."""
    _, t, c = shape
    return Function(
        lambda net, x: net.d(net.c(x + net.b(net.a(x.transpose(1, 2)).relu()).transpose(1, 2)).tanh()),
        a=nn.Linear(t, 5),
        b=nn.Linear(5, t),
        c=nn.Linear(c, width),
        d=nn.Linear(width, c),
    )


@kind("embedding", LAST)
def codebook(shape: Shape, width: int) -> nn.Module:
    """The nearest of five vectors, looked up again."""
    return Function(
        lambda net, x: (
            net.e(torch.cdist(x.reshape(-1, shape[-1]), net.e.weight).argmin(-1)).reshape(x.shape) + x
        ),
        e=nn.Embedding(5, shape[-1]),
    )


@kind("embedding", LAST)
def bucketed_embedding(shape: Shape, width: int) -> nn.Module:
    """Rows chosen by the sign of a sum, added to what was there."""
    return Function(
        lambda net, x: net.a(x) + net.e((x.sum(-1) > 0).long()),
        a=nn.Linear(shape[-1], width),
        e=nn.Embedding(2, width),
    )


@kind("embedding", SEQUENCE)
def learned_positions(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: x + net.e(net.places),
        e=nn.Embedding(shape[1], shape[2]),
        places=torch.arange(shape[1]),
    )


@kind("embedding", SEQUENCE)
def segments(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: x * net.e(net.places)[None].expand_as(x),
        e=nn.Embedding(2, shape[2]),
        places=torch.arange(shape[1]) % 2,
    )
