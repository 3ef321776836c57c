"""Reductions over hidden axes, and operations that depend on their order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.blocks.movement import then
from tests.random_networks.plan import LAST, SEQUENCE, kind
from tests.zoo.case import Function

REDUCED = {
    "sum": lambda h: h * h.sum(-1, keepdim=True).tanh(),
    "mean": lambda h: h - h.mean(-1, keepdim=True),
    "amax": lambda h: h - h.amax(-1, keepdim=True),
    "amin": lambda h: h + h.amin(-1, keepdim=True),
    "softmax": lambda h: h.softmax(-1),
    "log_softmax": lambda h: h.log_softmax(-1).tanh(),
    "logsumexp": lambda h: h - h.logsumexp(-1, keepdim=True),
    "norm": lambda h: h * h.norm(dim=-1, keepdim=True).tanh(),
    "deviation": lambda h: h * h.std(-1, keepdim=True).tanh(),
    "product": lambda h: h + h.tanh().prod(-1, keepdim=True),
    "sum_of_half": lambda h: h * h[..., :2].sum(-1, keepdim=True).tanh(),
    "softmax_in_halves": lambda h: h.unflatten(-1, (2, 2)).softmax(-1).flatten(-2),
    "softmax_across_halves": lambda h: h.unflatten(-1, (2, 2)).softmax(-2).flatten(-2),
    "sum_in_halves": lambda h: h.unflatten(-1, (2, 2)).tanh().sum(-1),
    "amax_across_halves": lambda h: h.unflatten(-1, (2, 2)).amax(-2),
    "gram": lambda h: (h.tanh() @ h.tanh().transpose(-1, -2)) @ h,
    "distance": lambda h: h * torch.exp(-(h[:1] - h).square().sum(-1, keepdim=True)),
    "l1": lambda h: h / (h.abs().sum(-1, keepdim=True) + 1),
    "count": lambda h: h * (h > 0).sum(-1, keepdim=True),
    "any": lambda h: torch.where((h > 0.5).any(-1, keepdim=True), h, h.tanh()),
}
ORDERED = {
    "cumsum": lambda h: h.cumsum(-1),
    "cumprod": lambda h: h.tanh().cumprod(-1),
    "cummax": lambda h: h.cummax(-1).values,
    "sort": lambda h: h.sort(-1).values,
    "sort_added": lambda h: h + h.sort(-1, descending=True).values,
    "topk": lambda h: h.topk(2, -1).values,
    "max": lambda h: h - h.max(-1, keepdim=True).values,
    "median": lambda h: h - h.median(-1, keepdim=True).values,
    "argmax": lambda h: h + h.argmax(-1, keepdim=True) / 4,
    "one_hot": lambda h: h * F.one_hot(h.argmax(-1), 4),
    "diff": lambda h: torch.cat([h[..., :1], h.diff(dim=-1)], -1),
    "kth": lambda h: h * (h >= h.topk(2, -1).values[..., -1:]),
    "threshold": lambda h: F.threshold(h, 0.1, 0.0) + h.clamp(-1, 1),
    "spectrum": lambda h: torch.fft.rfft(h, dim=-1).abs(),
    "weighted": lambda h: h @ torch.arange(16, dtype=h.dtype).view(4, 4).div(8),
    "polynomial": lambda h: torch.cat([h.tanh() ** power for power in (1, 2, 3)], -1),
}


@kind("reduction", LAST, how=tuple(REDUCED))
def reduced(shape: Shape, width: int, how: str) -> nn.Module:
    return then(REDUCED[how], shape[-1], width)


@kind("ordering", LAST, how=tuple(ORDERED))
def ordered(shape: Shape, width: int, how: str) -> nn.Module:
    return then(ORDERED[how], shape[-1], width)


POSITIONS = {
    "softmax": lambda x: x.softmax(1),
    "cumsum": lambda x: x.tanh().cumsum(1),
    "sort": lambda x: x.sort(1).values,
    "centre": lambda x: x - x.mean(1, keepdim=True),
    "last": lambda x: x[:, -1],
    "amax": lambda x: x.amax(1),
    "weighted": lambda x: (x * torch.arange(x.shape[1], dtype=x.dtype)[:, None]).mean(1),
    "topk": lambda x: x.topk(1, 1).values,
    "fourier": lambda x: torch.fft.fft2(x).real,
    "variance": lambda x: torch.cat([x.mean(1), x.var(1, correction=0)], -1),
}


@kind("reduction ordering", SEQUENCE, how=tuple(POSITIONS))
def over_positions(shape: Shape, width: int, how: str) -> nn.Module:
    return Function(lambda net, x: POSITIONS[how](x))


@kind("reduction", SEQUENCE)
def attention_pooling(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        return net.b((net.a(x).tanh().softmax(1).transpose(1, 2) @ x).flatten(1))

    return Function(run, a=nn.Linear(shape[2], 3), b=nn.Linear(3 * shape[2], width))
