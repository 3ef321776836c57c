"""Attention that knows where tokens are, or that normalises queries and keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.attention import merge_heads, split_heads
from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import SEQUENCE, kind
from tests.zoo.case import Function

HEADS = (2, 1)


def layers(channels: int, inner: int, width: int) -> dict[str, nn.Module]:
    """Queries, keys and values in one layer, and the output's."""
    return {"qkv": nn.Linear(channels, 3 * inner), "out": nn.Linear(inner, width)}


def heads_of(net: Function, x: Tensor, heads: int) -> tuple[Tensor, ...]:
    return tuple(split_heads(part, heads) for part in net.qkv(x).chunk(3, -1))


def rotated(x: Tensor, interleaved: bool) -> Tensor:
    """Rotary position embedding of pairs of dimensions: neighbours, or one of each half."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / 10 ** (
        torch.arange(half, dtype=x.dtype) / half
    )
    cos, sin = angles.cos(), angles.sin()
    if interleaved:
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


@kind("attention positions", SEQUENCE, heads=HEADS, interleaved=(False, True), partial=(False, True))
def rotary(shape: Shape, width: int, heads: int, interleaved: bool, partial: bool) -> nn.Module:
    def turn(x: Tensor) -> Tensor:
        if not partial:
            return rotated(x, interleaved)
        return torch.cat([rotated(x[..., :2], interleaved), x[..., 2:]], -1)

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = heads_of(net, x, heads)
        return net.out(merge_heads(F.scaled_dot_product_attention(turn(q), turn(k), v)))

    return Function(run, **layers(shape[2], 4 * heads, width))


@kind("attention positions", SEQUENCE, heads=HEADS)
def relative_bias(shape: Shape, width: int, heads: int) -> nn.Module:
    """A learned number for every head and distance."""
    length = shape[1]
    distance = torch.arange(length)[:, None] - torch.arange(length) + length - 1

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = heads_of(net, x, heads)
        bias = net.table(net.distance).permute(2, 0, 1)
        return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))

    table = nn.Embedding(2 * length - 1, heads)
    return Function(run, table=table, distance=distance, **layers(shape[2], 3 * heads, width))


@kind("attention positions", SEQUENCE, heads=(2, 4))
def linear_biases(shape: Shape, width: int, heads: int) -> nn.Module:
    """ALiBi: a slope of its own for every head."""
    length = shape[1]
    slopes = 2.0 ** -torch.arange(1.0, heads + 1)
    bias = slopes[:, None, None] * (torch.arange(length) - torch.arange(length)[:, None]).float()

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = heads_of(net, x, heads)
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        scores = (q @ k.transpose(-1, -2) + net.bias).masked_fill(~allowed, float("-inf"))
        return net.out(merge_heads(scores.softmax(-1) @ v))

    return Function(run, bias=bias, **layers(shape[2], 2 * heads, width))


@kind("attention", SEQUENCE, how=("layer_norm", "rms", "unit_length"), heads=HEADS)
def normalised_queries(shape: Shape, width: int, how: str, heads: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = heads_of(net, x, heads)
        if how == "unit_length":
            q, k = F.normalize(q, dim=-1) * net.scale, F.normalize(k, dim=-1)
        else:
            q, k = net.nq(q), net.nk(k)
        return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    norm = nn.LayerNorm if how == "layer_norm" else nn.RMSNorm
    return Function(
        run,
        scale=free(heads, 1, 1),
        nq=norm(3, eps=0.1),
        nk=norm(3, eps=0.1),
        **layers(shape[2], 3 * heads, width),
    )


@kind("attention positions", SEQUENCE)
def relative_keys(shape: Shape, width: int) -> nn.Module:
    """A learned key for every distance, met by shifting a padded table (Transformer-XL)."""
    length = shape[1]

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = heads_of(net, x, 2)
        by_distance = torch.einsum("bhtd,shd->bhts", q + net.v[:, None], net.places.unflatten(-1, (2, 3)))
        padded = F.pad(by_distance, (1, 0)).reshape(len(x), 2, length + 1, length)
        scores = (q + net.u[:, None]) @ k.transpose(-1, -2) + padded[:, :, 1:]
        return net.out(merge_heads(scores.softmax(-1) @ v))

    return Function(run, u=free(2, 3), v=free(2, 3), places=free(length, 6), **layers(shape[2], 6, width))


@kind("attention masks", SEQUENCE, heads=HEADS)
def class_token(shape: Shape, width: int, heads: int) -> nn.Module:
    """A learned token in front, read out at the end; tokens behind are masked."""

    def run(net: Function, x: Tensor) -> Tensor:
        x = torch.cat([net.token.expand(len(x), -1, -1), x], 1) + net.places
        q, k, v = heads_of(net, x, heads)
        mask = torch.arange(x.shape[1]) < x.shape[1] - 1
        return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])))[:, 0]

    _, t, c = shape
    return Function(run, token=free(1, 1, c), places=free(t + 1, c), **layers(c, 3 * heads, width))


@kind("attention", SEQUENCE)
def differential(shape: Shape, width: int) -> nn.Module:
    """The difference of two softmaxes."""

    def run(net: Function, x: Tensor) -> Tensor:
        q, k = split_heads(net.q(x), 4), split_heads(net.k(x), 4)
        one, two = (q @ k.transpose(-1, -2)).softmax(-1).unflatten(1, (2, 2)).unbind(2)
        weights = one - torch.exp((net.a * net.b).sum(-1))[:, None, None] * two
        return net.out(net.norm(weights @ split_heads(net.v(x), 2)).transpose(1, 2).flatten(2))

    c = shape[2]
    return Function(
        run,
        q=nn.Linear(c, 8),
        k=nn.Linear(c, 8),
        v=nn.Linear(c, 6),
        a=free(2, 2),
        b=free(2, 2),
        norm=nn.RMSNorm(3, eps=0.1),
        out=nn.Linear(6, width),
    )
