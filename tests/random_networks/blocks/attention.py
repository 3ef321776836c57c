"""Attention: PyTorch's module, its function, written out, across, grouped, in windows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import SEQUENCE, kind
from tests.zoo.case import Function

HEADS = (2, 1, 3)
DIMS = (2, 3)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * dim) to (batch, heads, length, dim)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


@kind("attention", SEQUENCE, bias=(True, False), extra=("nothing", "bias_kv", "zero", "averaged_weights"))
def multihead(shape: Shape, width: int, bias: bool, extra: str) -> nn.Module:
    c = shape[2]
    layer = nn.MultiheadAttention(
        *(c, math.gcd(c, 2)),
        bias=bias,
        batch_first=True,
        add_bias_kv=extra == "bias_kv",
        add_zero_attn=extra == "zero",
    )
    weights = extra == "averaged_weights"
    return Function(lambda net, x: net.layer(x, x, x, need_weights=weights)[0], layer=layer)


@kind("attention", SEQUENCE)
def multihead_with_sizes(shape: Shape, width: int) -> nn.Module:
    """Keys and values of sizes of their own."""
    c = shape[2]
    return Function(
        lambda net, x: net.layer(x, net.k(x), net.v(x))[0],
        k=nn.Linear(c, 3),
        v=nn.Linear(c, 5),
        layer=nn.MultiheadAttention(c, math.gcd(c, 2), kdim=3, vdim=5, batch_first=True),
    )


@kind(
    "attention",
    SEQUENCE,
    heads=HEADS,
    dim=DIMS,
    causal=(False, True),
    packing=("qkv_heads", "chunk", "heads_qkv", "heads_dim_qkv"),
)
def packed_attention(shape: Shape, width: int, heads: int, dim: int, causal: bool, packing: str) -> nn.Module:
    """Queries, keys and values from one layer, packed in any order."""

    def parts(x: Tensor) -> tuple[Tensor, ...]:
        if packing == "chunk":
            return tuple(split_heads(part, heads) for part in x.chunk(3, -1))
        if packing == "qkv_heads":
            return x.unflatten(-1, (3, heads, dim)).permute(2, 0, 3, 1, 4).unbind(0)
        if packing == "heads_qkv":
            return x.unflatten(-1, (heads, 3, dim)).permute(3, 0, 2, 1, 4).unbind(0)
        return x.unflatten(-1, (heads, dim, 3)).permute(4, 0, 2, 1, 3).unbind(0)

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = parts(net.qkv(x))
        return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=causal)))

    return Function(run, qkv=nn.Linear(shape[2], 3 * heads * dim), out=nn.Linear(heads * dim, width))


@kind("attention einsum", SEQUENCE, heads=HEADS, dim=DIMS)
def attention_by_einsum(shape: Shape, width: int, heads: int, dim: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,chd->bthd", x, w) for w in (net.q, net.k, net.v))
        weights = (torch.einsum("bthd,bshd->bhts", q, k) / dim**0.5).softmax(-1)
        return torch.einsum("bhts,bshd,hdo->bto", weights, v, net.o)

    c = shape[2]
    return Function(
        run, q=free(c, heads, dim), k=free(c, heads, dim), v=free(c, heads, dim), o=free(heads, dim, width)
    )


@kind("attention", SEQUENCE, heads=HEADS, dim=DIMS)
def cross_attention(shape: Shape, width: int, heads: int, dim: int) -> nn.Module:
    """Learned queries read the tokens, and the tokens read them back."""

    def run(net: Function, x: Tensor) -> Tensor:
        latents = net.latents.expand(len(x), -1, -1)
        q, k = split_heads(net.q(latents), heads), split_heads(net.k(x), heads)
        read = merge_heads(F.scaled_dot_product_attention(q, k, split_heads(net.v(x), heads)))
        back = net.back(x) @ read.transpose(1, 2)
        return net.out(back.softmax(-1) @ read)

    c, inner = shape[2], heads * dim
    return Function(
        run,
        latents=free(1, 3, 4),
        q=nn.Linear(4, inner),
        k=nn.Linear(c, inner),
        v=nn.Linear(c, inner),
        back=nn.Linear(c, inner),
        out=nn.Linear(inner, width),
    )


@kind("attention", SEQUENCE, shared=(2, 1), form=("interleave", "expand", "enable_gqa", "einsum"))
def grouped_queries(shape: Shape, width: int, shared: int, form: str) -> nn.Module:
    """Four query heads of two dimensions over one or two heads of keys and values."""

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = split_heads(net.q(x), 4), split_heads(net.k(x), shared), split_heads(net.v(x), shared)
        if form == "enable_gqa":
            return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v, enable_gqa=True)))
        if form == "einsum":
            grouped = q.unflatten(1, (shared, -1))
            weights = torch.einsum("bghtd,bgsd->bghts", grouped, k).softmax(-1)
            return net.out(merge_heads(torch.einsum("bghts,bgsd->bghtd", weights, v).flatten(1, 2)))
        if form == "interleave":
            k, v = (part.repeat_interleave(4 // shared, 1) for part in (k, v))
        else:
            k, v = (part[:, :, None].expand(-1, -1, 4 // shared, -1, -1).flatten(1, 2) for part in (k, v))
        return net.out(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    c = shape[2]
    return Function(
        run,
        q=nn.Linear(c, 8),
        k=nn.Linear(c, 2 * shared),
        v=nn.Linear(c, 2 * shared),
        out=nn.Linear(8, width),
    )


@kind("attention", SEQUENCE, shift=(0, 1), heads=(1, 2))
def windows(shape: Shape, width: int, shift: int, heads: int) -> nn.Module:
    """Attention inside windows of two, rolled by one where they are shifted."""

    def run(net: Function, x: Tensor) -> Tensor:
        batch, length, c = x.shape
        padded = F.pad(x, (0, 0, 0, length % 2)).roll(-shift, 1)
        cut = padded.reshape(-1, 2, c)
        q, k, v = (split_heads(part, heads) for part in net.qkv(cut).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / 2 + net.bias[:, net.relative]
        mixed = merge_heads(scores.softmax(-1) @ v)
        return net.out(mixed.reshape(batch, -1, heads * 2).roll(shift, 1)[:, :length])

    return Function(
        run,
        qkv=nn.Linear(shape[2], heads * 6),
        out=nn.Linear(heads * 2, width),
        bias=free(heads, 3),
        relative=torch.tensor([[1, 2], [0, 1]]),
    )


@kind("attention", SEQUENCE)
def talking_heads(shape: Shape, width: int) -> nn.Module:
    """Heads mixed before and after the softmax."""

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, 3) for part in net.qkv(x).chunk(3, -1))
        scores = torch.einsum("bhts,hg->bgts", q @ k.transpose(-1, -2), net.before)
        return net.out(merge_heads(torch.einsum("bhts,hg->bgts", scores.softmax(-1), net.after) @ v))

    return Function(
        run, qkv=nn.Linear(shape[2], 18), before=free(3, 3), after=free(3, 3), out=nn.Linear(6, width)
    )


@kind("attention", SEQUENCE)
def channel_covariance(shape: Shape, width: int) -> nn.Module:
    """Attention between channels instead of positions."""

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, 2).transpose(-1, -2) for part in net.qkv(x).chunk(3, -1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * net.scale
        return net.out(merge_heads((scores.softmax(-1) @ v).transpose(-1, -2)))

    return Function(run, qkv=nn.Linear(shape[2], 18), scale=free(2, 1, 1), out=nn.Linear(6, width))
