"""Gated units: packed in every order and unpacked, highways, squeeze and excitation, modulation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import IMAGE, LAST, SEQUENCE, SIGNAL, kind
from tests.zoo.case import Function


@kind("gated", LAST)
def glu(shape: Shape, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[-1], 2 * width), nn.GLU())


@kind("gated", LAST, packing=("chunk", "split", "interleaved", "views", "unbind"))
def swiglu_packed(shape: Shape, width: int, packing: str) -> nn.Module:
    def halves(h: Tensor) -> tuple[Tensor, ...]:
        if packing == "chunk":
            return h.chunk(2, -1)
        if packing == "split":
            return h.split([width, width], -1)
        if packing == "interleaved":
            return h[..., ::2], h[..., 1::2]
        if packing == "views":
            return h.unflatten(-1, (2, width)).select(-2, 0), h.unflatten(-1, (2, width)).select(-2, 1)
        return h.unflatten(-1, (width, 2)).unbind(-1)

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = halves(net.a(x))
        return net.b(F.silu(a) * b)

    return Function(run, a=nn.Linear(shape[-1], 2 * width), b=nn.Linear(width, shape[-1]))


@kind("gated", LAST)
def swiglu(shape: Shape, width: int) -> nn.Module:
    c = shape[-1]
    return Function(
        lambda net, x: net.c(F.silu(net.a(x)) * net.b(x)),
        a=nn.Linear(c, width, bias=False),
        b=nn.Linear(c, width, bias=False),
        c=nn.Linear(width, c, bias=False),
    )


@kind("gated", LAST)
def maxout(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: net.a(x).unflatten(-1, (width, 3)).amax(-1), a=nn.Linear(shape[-1], 3 * width)
    )


@kind("gated", LAST)
def highway(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        gate = net.a(x).sigmoid()
        return gate * net.b(x).tanh() + (1 - gate) * x

    return Function(run, a=nn.Linear(shape[-1], shape[-1]), b=nn.Linear(shape[-1], shape[-1]))


@kind("gated", LAST)
def scaled(shape: Shape, width: int) -> nn.Module:
    return Function(lambda net, x: net.a * x + net.b, a=free(shape[-1]), b=free(shape[-1]))


@kind("gated", LAST)
def prelu(shape: Shape, width: int) -> nn.Module:
    layer = nn.Linear(shape[-1], width)
    return Function(
        lambda net, x: F.prelu(net.a(x).reshape(-1, width), net.p).reshape(*x.shape[:-1], width),
        a=layer,
        p=free(width),
    )


@kind("squeeze_excite", IMAGE, pooled=("mean", "adaptive", "max"))
def squeeze_excite(shape: Shape, width: int, pooled: str) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        if pooled == "mean":
            s = x.mean((2, 3))
        elif pooled == "adaptive":
            s = F.adaptive_avg_pool2d(x, 1).flatten(1)
        else:
            s = x.amax((2, 3))
        return x * net.b(net.a(s).relu()).sigmoid()[:, :, None, None]

    return Function(run, a=nn.Linear(shape[1], width), b=nn.Linear(width, shape[1]))


@kind("squeeze_excite", SIGNAL)
def channel_attention(shape: Shape, width: int) -> nn.Module:
    """A short convolution along the channels themselves."""
    return Function(
        lambda net, x: x * net.a(x.mean(2)[:, None]).transpose(1, 2).sigmoid(),
        a=nn.Conv1d(1, 1, 3, padding=1),
    )


@kind("gated", SEQUENCE)
def modulated(shape: Shape, width: int) -> nn.Module:
    """Scale and shift from the mean over positions."""

    def run(net: Function, x: Tensor) -> Tensor:
        scale, shift = net.a(x.mean(1, keepdim=True)).chunk(2, -1)
        return net.b(x) * (1 + scale) + shift

    return Function(run, a=nn.Linear(shape[2], 2 * width), b=nn.Linear(shape[2], width))


@kind("gated", SEQUENCE)
def spatial_gate(shape: Shape, width: int) -> nn.Module:
    """Half of the channels gated by the other half, mixed over positions."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.a(x).chunk(2, -1)
        return net.c(a * net.b(net.norm(b).transpose(1, 2)).transpose(1, 2))

    return Function(
        run,
        a=nn.Linear(shape[2], 2 * width),
        norm=nn.LayerNorm(width),
        b=nn.Linear(shape[1], shape[1]),
        c=nn.Linear(width, shape[2]),
    )


@kind("gated", LAST)
def gated_by_one(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: net.a(x) * torch.sigmoid(net.b(x)),
        a=nn.Linear(shape[-1], width),
        b=nn.Linear(shape[-1], 1),
    )
