"""Positions by index, masks, and writes in place through views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.blocks.movement import then
from tests.random_networks.plan import LAST, SEQUENCE, kind
from tests.zoo.case import Function

ORDER = torch.tensor([2, 0, 3, 1])


def expanded(index: Tensor, h: Tensor) -> Tensor:
    return index.expand(*h.shape[:-1], len(index))


LOOKED_UP = {
    "index": lambda h: h[..., ORDER],
    "index_twice": lambda h: h[..., torch.tensor([0, 0, 1, 2])],
    "index_added": lambda h: h + h[..., ORDER],
    "select": lambda h: h.index_select(-1, torch.tensor([1, 3])),
    "gather": lambda h: h.gather(-1, expanded(ORDER, h)),
    "take_along": lambda h: torch.take_along_dim(h, expanded(ORDER[:2], h), -1),
    "scatter": lambda h: torch.zeros_like(h).scatter(-1, expanded(ORDER, h), h),
    "scatter_add": lambda h: torch.zeros_like(h).scatter_add(-1, expanded(torch.tensor([0, 0, 1, 2]), h), h),
    "index_add": lambda h: torch.zeros_like(h).index_add(h.dim() - 1, torch.tensor([0, 0, 1, 1]), h),
    "index_copy": lambda h: h.index_copy(h.dim() - 1, torch.tensor([0]), h[..., 1:2].tanh()),
    "index_fill": lambda h: h.index_fill(-1, torch.tensor([1]), 0.5),
    "masked": lambda h: h.masked_fill(torch.tensor([True, False, False, True]), 0.0),
    "where": lambda h: torch.where(torch.tensor([True, True, False, False]), h.tanh(), h.relu()),
    "boolean": lambda h: h[..., torch.tensor([True, False, True, True])],
    "one_unit": lambda h: h * h[..., 1:2].sigmoid(),
    "multiplied": lambda h: h * torch.tensor([1.0, 2.0, 1.0, 2.0], dtype=h.dtype),
    "upper": lambda h: (h.unsqueeze(-1) * h.unsqueeze(-2))[(..., *torch.triu_indices(4, 4).unbind())],
    "argsorted": lambda h: h.gather(-1, h.argsort(-1)),
    "by_first": lambda h: h[..., h.reshape(-1, 4)[0].argsort()],
}


@kind("indexing", LAST, how=tuple(LOOKED_UP))
def looked_up(shape: Shape, width: int, how: str) -> nn.Module:
    return then(LOOKED_UP[how], shape[-1], width)


def _slice(h: Tensor) -> None:
    h[..., :2] += h[..., 2:]


def _column(h: Tensor) -> None:
    h[..., 1] = h[..., 0]


def _half(h: Tensor) -> None:
    h.unflatten(-1, (2, 2)).select(-2, 1).mul_(0.5).tanh_()


def _chunk(h: Tensor) -> None:
    a, b = h.chunk(2, -1)
    a.add_(b)
    b.sigmoid_()


def _mask(h: Tensor) -> None:
    h[h > 0] = 0.5


def _first_row(h: Tensor) -> None:
    h[0] += h[1]


def _transposed(h: Tensor) -> None:
    h.transpose(0, -1).add_(1.0).relu_()


def _diagonal(h: Tensor) -> None:
    h.unflatten(-1, (2, 2)).diagonal(dim1=-2, dim2=-1).add_(1.0)


def _list(h: Tensor) -> None:
    h[..., [0, 2]] = h[..., [1, 3]] * 2


def _copy(h: Tensor) -> None:
    h[..., 2:].copy_(h[..., :2].tanh())


WRITTEN = {f.__name__.strip("_"): f for f in (_slice, _column, _half, _chunk, _mask, _first_row)}
WRITTEN |= {f.__name__.strip("_"): f for f in (_transposed, _diagonal, _list, _copy)}


@kind("in_place", LAST, how=tuple(WRITTEN))
def written_in_place(shape: Shape, width: int, how: str) -> nn.Module:
    def change(h: Tensor) -> Tensor:
        h = h.clone()
        WRITTEN[how](h)
        return h

    return then(change, shape[-1], width)


@kind("in_place", LAST)
def into_empty(shape: Shape, width: int) -> nn.Module:
    def change(h: Tensor) -> Tensor:
        out = torch.empty(*h.shape[:-1], 6, dtype=h.dtype)
        out[..., :4] = h
        out[..., 4:] = h[..., :2] * 2
        return out.tanh_()

    return then(change, shape[-1], width)


@kind("in_place", LAST)
def chained_in_place(shape: Shape, width: int) -> nn.Module:
    return Function(
        lambda net, x: net.b(net.a(x).add_(1.0).mul_(0.5).relu_().clamp_(max=2.0)),
        a=nn.Linear(shape[-1], 4),
        b=nn.Linear(4, width),
    )


@kind("masks", SEQUENCE, by=("lengths", "data", "constant"))
def masked_mean(shape: Shape, width: int, by: str) -> nn.Module:
    """A mean over the tokens that a mask keeps."""

    def run(net: Function, x: Tensor) -> Tensor:
        if by == "lengths":
            mask = (torch.arange(x.shape[1]) < torch.arange(1, len(x) + 1)[:, None]).to(x.dtype)
        elif by == "data":
            mask = (x.sum(-1) > 0).to(x.dtype) + 0.1
        else:
            mask = torch.ones(x.shape[:2], dtype=x.dtype)
        return net.a((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    return Function(run, a=nn.Linear(shape[2], width))


@kind("indexing positions", SEQUENCE)
def tokens_by_index(shape: Shape, width: int) -> nn.Module:
    order = torch.arange(shape[1]).flip(0)
    return Function(
        lambda net, x: net.a(x) + net.b(x[:, net.order]),
        order=order,
        a=nn.Linear(shape[2], width),
        b=nn.Linear(shape[2], width),
    )


@kind("indexing", SEQUENCE)
def best_tokens(shape: Shape, width: int) -> nn.Module:
    """The tokens with the highest scores, gathered."""

    def run(net: Function, x: Tensor) -> Tensor:
        best = net.score(x)[..., 0].topk(min(2, x.shape[1]), 1).indices
        return net.a(x.gather(1, best[..., None].expand(-1, -1, x.shape[2])))

    return Function(run, score=nn.Linear(shape[2], 1), a=nn.Linear(shape[2], width))


@kind("indexing", SEQUENCE)
def graph_convolution(shape: Shape, width: int) -> nn.Module:
    """Messages along edges, scattered to where they end."""
    source = torch.arange(shape[1])
    target = (source * 2 + 1) % shape[1]

    def run(net: Function, x: Tensor) -> Tensor:
        messages = net.message(torch.cat([x[:, net.source], x[:, net.target]], -1)).relu()
        summed = torch.zeros(*x.shape[:2], 4, dtype=x.dtype).index_add(1, net.target, messages)
        return net.update(torch.cat([x, summed], -1))

    return Function(
        run,
        source=source,
        target=target,
        message=nn.Linear(2 * shape[2], 4),
        update=nn.Linear(shape[2] + 4, width),
    )
