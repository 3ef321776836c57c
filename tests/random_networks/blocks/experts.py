"""Mixtures of experts: dense and sparse, looped and batched, routed by data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import LAST, SEQUENCE, kind
from tests.zoo.case import Function

EXPERTS = (3, 2, 4)


def expert(channels: int, width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, out))


def several(count: int, channels: int, width: int, out: int) -> nn.ModuleList:
    return nn.ModuleList(expert(channels, width, out) for _ in range(count))


@kind("experts", LAST, count=EXPERTS, stacked=(False, True))
def dense_experts(shape: Shape, width: int, count: int, stacked: bool) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        gate = net.router(x).softmax(-1)
        if stacked:
            return (gate.unsqueeze(-2) * torch.stack([e(x) for e in net.experts], -1)).sum(-1)
        return sum(gate[..., i : i + 1] * e(x) for i, e in enumerate(net.experts))

    c = shape[-1]
    return Function(run, router=nn.Linear(c, count), experts=several(count, c, 3, width))


@kind("experts", SEQUENCE, count=EXPERTS, top=(1, 2))
def top_experts(shape: Shape, width: int, count: int, top: int) -> nn.Module:
    """Tokens sent to the experts that the router likes best, added back by index."""

    def run(net: Function, x: Tensor) -> Tensor:
        flat = x.reshape(-1, shape[2])
        weight, chosen = net.router(flat).softmax(-1).topk(top, -1)
        out = torch.zeros(len(flat), width, dtype=x.dtype)
        for number, one in enumerate(net.experts):
            token, place = torch.where(chosen == number)
            out.index_add_(0, token, one(flat[token]) * weight[token, place, None])
        return out.view(*x.shape[:2], width)

    return Function(run, router=nn.Linear(shape[2], count), experts=several(count, shape[2], 3, width))


@kind("experts", SEQUENCE, count=EXPERTS)
def routed_by_mask(shape: Shape, width: int, count: int) -> nn.Module:
    """Each token goes to one expert, by boolean masks."""

    def run(net: Function, x: Tensor) -> Tensor:
        flat = x.reshape(-1, shape[2])
        choice = net.router(flat).argmax(-1)
        out = torch.zeros(len(flat), width, dtype=x.dtype)
        for number, one in enumerate(net.experts):
            if (choice == number).any():
                out[choice == number] = one(flat[choice == number])
        return out.view(*x.shape[:2], width)

    return Function(run, router=nn.Linear(shape[2], count), experts=several(count, shape[2], 3, width))


@kind("experts", LAST, count=EXPERTS, form=("einsum", "bmm", "looked_up", "matmul"))
def batched_experts(shape: Shape, width: int, count: int, form: str) -> nn.Module:
    """Experts' weights in one tensor (experts, in, hidden)."""

    def run(net: Function, x: Tensor) -> Tensor:
        flat = x.reshape(-1, shape[-1])
        logits = net.router(flat)
        if form == "looked_up":
            one = logits.argmax(-1)
            h = torch.bmm(flat[:, None], net.up[one]).relu() + net.bias[one][:, None]
            return torch.bmm(h, net.down[one])[:, 0].reshape(*x.shape[:-1], width)
        if form == "einsum":
            h = torch.einsum("ni,eih->neh", flat, net.up) + net.bias
            out = torch.einsum("neh,eho->neo", h.relu(), net.down)
            mixed = torch.einsum("ne,neo->no", logits.softmax(-1), out)
        elif form == "bmm":
            h = torch.baddbmm(net.bias[:, None], flat.expand(count, *flat.shape), net.up).relu()
            mixed = (torch.bmm(h, net.down) * logits.softmax(-1).t()[:, :, None]).sum(0)
        else:
            h = F.gelu(flat[None] @ net.up)
            mixed = torch.einsum("eno,ne->no", h @ net.down, logits.sigmoid())
        return mixed.reshape(*x.shape[:-1], width)

    c = shape[-1]
    return Function(
        run, router=nn.Linear(c, count), up=free(count, c, 3), bias=free(count, 3), down=free(count, 3, width)
    )


@kind("experts", SEQUENCE)
def expert_choice(shape: Shape, width: int) -> nn.Module:
    """Experts choose their two best tokens."""

    def run(net: Function, x: Tensor) -> Tensor:
        flat = x.reshape(-1, shape[2])
        weight, token = net.router(flat).softmax(0).topk(min(2, len(flat)), 0)
        out = net.skip(flat)
        for number, one in enumerate(net.experts):
            out = out.index_add(0, token[:, number], one(flat[token[:, number]]) * weight[:, number, None])
        return out.view(*x.shape[:2], width)

    return Function(
        run,
        router=nn.Linear(shape[2], 2),
        skip=nn.Linear(shape[2], width),
        experts=several(2, shape[2], 3, width),
    )


@kind("experts", LAST)
def product_keys(shape: Shape, width: int) -> nn.Module:
    """A memory read by softmax over the sums of two small sets of keys."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.query(x).chunk(2, -1)
        scores = (a @ net.first.t()).unsqueeze(-1) + (b @ net.second.t()).unsqueeze(-2)
        return scores.flatten(-2).softmax(-1) @ net.values

    return Function(
        run, query=nn.Linear(shape[-1], 6), first=free(2, 3), second=free(3, 3), values=free(6, width)
    )
