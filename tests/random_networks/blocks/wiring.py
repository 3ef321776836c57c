"""Branches: residual, dense, U-shaped, parallel, split and merged, shared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.plan import IMAGE, LAST, SEQUENCE, kind
from tests.zoo.case import Function


@kind("residual", LAST, first=(True, False))
def residual(shape: Shape, width: int, first: bool) -> nn.Module:
    c = shape[-1]

    def run(net: Function, x: Tensor) -> Tensor:
        inner = net.b(net.a(net.norm(x) if first else x).relu())
        return x + inner if first else net.norm(x + inner)

    return Function(run, norm=nn.LayerNorm(c, eps=0.1), a=nn.Linear(c, width), b=nn.Linear(width, c))


@kind("residual normalisation", IMAGE, option=("A", "B"), stride=(1, 2))
def residual_image(shape: Shape, width: int, option: str, stride: int) -> nn.Module:
    c = shape[1]
    out = max(c, width)

    def run(net: Function, x: Tensor) -> Tensor:
        y = net.norm2(net.conv2(F.relu(net.norm1(net.conv1(x)))))
        if option == "B":
            return F.relu(y + net.project(x))
        before = (out - c) // 2
        return F.relu(y + F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, out - c - before)))

    return Function(
        run,
        conv1=nn.Conv2d(c, 3, 3, stride, 1, bias=False),
        norm1=nn.BatchNorm2d(3),
        conv2=nn.Conv2d(3, out, 3, 1, 1, bias=False),
        norm2=nn.BatchNorm2d(out),
        project=nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out)),
    )


@kind("concatenation", IMAGE)
def dense_net(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        one = torch.cat([x, F.relu(net.a(x))], 1)
        two = torch.cat([one, F.relu(net.b(net.norm(one)))], 1)
        return F.relu(net.c(two))

    c = shape[1]
    return Function(
        run,
        a=nn.Conv2d(c, 3, 3, padding=1),
        norm=nn.BatchNorm2d(c + 3),
        b=nn.Conv2d(c + 3, 2, 3, padding=1),
        c=nn.Conv2d(c + 5, width, 1),
    )


@kind("concatenation", IMAGE)
def u_net(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        fine = F.relu(net.down(x))
        coarse = F.relu(net.bottom(F.adaptive_max_pool2d(fine, 2)))
        raised = F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        return net.up(torch.cat([fine, raised], 1))

    return Function(
        run,
        down=nn.Conv2d(shape[1], 4, 3, padding=1),
        bottom=nn.Conv2d(4, 3, 3, padding=1),
        up=nn.Conv2d(7, width, 3, padding=1),
    )


@kind("concatenation", IMAGE)
def inception(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        return torch.cat([net.a(x).relu(), net.b(x).tanh(), net.c(F.max_pool2d(x, 3, 1, 1))], 1)

    c = shape[1]
    return Function(run, a=nn.Conv2d(c, 3, 1), b=nn.Conv2d(c, 3, 3, padding=1), c=nn.Conv2d(c, 2, 1))


@kind("concatenation", LAST)
def cross_stage(shape: Shape, width: int) -> nn.Module:
    """Half of the channels pass through layers, the rest goes around them."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.a(x).split([3, 2], -1)
        return net.c(torch.cat([a, net.b(b).relu()], -1))

    return Function(run, a=nn.Linear(shape[-1], 5), b=nn.Linear(2, 4), c=nn.Linear(7, width))


@kind("concatenation", IMAGE)
def split_in_stages(shape: Shape, width: int) -> nn.Module:
    """Res2Net: every part also reads the part before it."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b, c = net.a(x).chunk(3, 1)
        b = net.b(a + b).relu()
        return net.d(torch.cat([a, b, net.c(b + c).relu()], 1))

    return Function(
        run,
        a=nn.Conv2d(shape[1], 6, 1),
        b=nn.Conv2d(2, 2, 3, padding=1),
        c=nn.Conv2d(2, 2, 3, padding=1),
        d=nn.Conv2d(6, width, 1),
    )


@kind("concatenation", LAST, how=("sum", "max", "product", "concat", "interleaved", "softmax"))
def branches(shape: Shape, width: int, how: str) -> nn.Module:
    """Two layers side by side, stacked."""

    def run(net: Function, x: Tensor) -> Tensor:
        stacked = torch.stack([net.a(x).relu(), net.b(x).tanh()], -2)
        if how == "sum":
            return stacked.sum(-2)
        if how == "max":
            return stacked.max(-2).values
        if how == "product":
            return stacked.prod(-2)
        if how == "interleaved":
            return stacked.transpose(-1, -2).flatten(-2)
        return stacked.softmax(-2).flatten(-2) if how == "softmax" else stacked.flatten(-2)

    return Function(run, a=nn.Linear(shape[-1], width), b=nn.Linear(shape[-1], width))


@kind("residual", LAST)
def reversible(shape: Shape, width: int) -> nn.Module:
    """Two streams that are added to each other in turn."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.a(x).chunk(2, -1)
        a = a + net.f(b).tanh()
        b = b + net.g(a).tanh()
        return torch.cat([a, b], -1)

    return Function(run, a=nn.Linear(shape[-1], 6), f=nn.Linear(3, 3), g=nn.Linear(3, 3))


@kind("tied residual", LAST)
def iterated(shape: Shape, width: int) -> nn.Module:
    """One block, until it hardly changes or three times."""

    def run(net: Function, x: Tensor) -> Tensor:
        for _ in range(3):
            new = x + net.b(net.a(x).tanh())
            if bool((new - x).abs().max() < 1e-3):
                break
            x = new
        return x

    return Function(run, a=nn.Linear(shape[-1], width), b=nn.Linear(width, shape[-1]))


@kind("tied", SEQUENCE)
def siamese(shape: Shape, width: int) -> nn.Module:
    """One encoder for the first and the last token, compared."""

    def run(net: Function, x: Tensor) -> Tensor:
        a, b = net.a(x[:, 0]).tanh(), net.a(x[:, -1]).tanh()
        return net.b(torch.cat([a * b, (a - b).abs(), F.cosine_similarity(a, b, dim=1)[:, None]], 1))

    return Function(run, a=nn.Linear(shape[2], 4), b=nn.Linear(9, width))
