"""Convolutions: of one to three dimensions, grouped, depthwise, transposed, dilated, strided, padded."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import NORMED, Shape, free, normed
from tests.random_networks.plan import IMAGE, SIGNAL, VOLUME, kind
from tests.zoo.case import Function

PADDING = ("zeros", "circular", "reflect", "replicate", "none", "same")
RANKS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


def convolution(
    shape: Shape, width: int, kernel: int, groups: int, stride: int, dilation: int, padding: str, bias: bool
) -> nn.Module:
    """A convolution that fits what it is given: options that do not are made smaller."""
    rank, c = len(shape) - 2, shape[1]
    groups = c if groups == 0 else math.gcd(c, groups)
    out = max(1, round(width / groups)) * groups
    smallest = min(shape[2:])
    while (kernel - 1) * dilation >= smallest and kernel > 1:
        kernel -= 1
    around = dilation * (kernel - 1) // 2
    layer = RANKS[rank][0]
    if padding == "same":
        return layer(c, out, kernel - (kernel + 1) % 2, 1, "same", dilation, groups, bias)
    if padding == "none":
        return layer(c, out, kernel, stride, 0, dilation, groups, bias)
    mode = "zeros" if rank == 3 and padding == "reflect" else padding
    return layer(c, out, kernel, stride, around, dilation, groups, bias, mode)


OPTIONS = {
    "kernel": (3, 1, 2),
    "groups": (1, 1, 2, 3, 0),
    "stride": (1, 1, 2),
    "dilation": (1, 1, 2),
    "padding": PADDING,
    "bias": (True, False),
}


@kind("convolution grouped_convolution", SIGNAL, **OPTIONS)
def conv1d(shape: Shape, width: int, **options: object) -> nn.Module:
    return convolution(shape, width, **options)


@kind("convolution grouped_convolution", IMAGE, **OPTIONS)
def conv2d(shape: Shape, width: int, **options: object) -> nn.Module:
    return convolution(shape, width, **options)


@kind("convolution", VOLUME, **OPTIONS)
def conv3d(shape: Shape, width: int, **options: object) -> nn.Module:
    return convolution(shape, width, **options)


@kind("transposed_convolution", (IMAGE, SIGNAL), groups=(1, 2, 0), stride=(1, 2), kernel=(2, 3), extra=(0, 1))
def transposed(shape: Shape, width: int, groups: int, stride: int, kernel: int, extra: int) -> nn.Module:
    c = shape[1]
    groups = c if groups == 0 else math.gcd(c, groups)
    out = max(1, round(width / groups)) * groups
    layer = RANKS[len(shape) - 2][1]
    return layer(c, out, kernel, stride, padding=0, output_padding=min(extra, stride - 1), groups=groups)


@kind("depthwise_convolution", (IMAGE, SIGNAL), multiplier=(1, 2))
def separable(shape: Shape, width: int, multiplier: int) -> nn.Module:
    c = shape[1]
    layer = RANKS[len(shape) - 2][0]
    return nn.Sequential(layer(c, c * multiplier, 3, padding=1, groups=c), layer(c * multiplier, width, 1))


@kind("depthwise_convolution normalisation", IMAGE)
def inverted_residual(shape: Shape, width: int) -> nn.Module:
    c = shape[1]
    return Function(
        lambda net, x: x + net.body(x),
        body=nn.Sequential(
            *(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()),
            *(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.SiLU(),
            ),
            *(nn.Conv2d(width, c, 1, bias=False), nn.BatchNorm2d(c)),
        ),
    )


@kind("weight_norm spectral_norm convolution", (IMAGE, SIGNAL), how=NORMED)
def normed_convolution(shape: Shape, width: int, how: str) -> nn.Module:
    return normed(RANKS[len(shape) - 2][0](shape[1], width, 3, padding=1), how)


@kind("convolution", IMAGE)
def standardised_weight(shape: Shape, width: int) -> nn.Module:
    """Every filter with mean zero and variance one."""

    def run(net: Function, x: Tensor) -> Tensor:
        w = net.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 0.1)
        return F.conv2d(x, w, net.bias, padding=1)

    return Function(run, weight=free(width, shape[1], 3, 3), bias=free(width))


@kind("unfold", IMAGE, form=("unfold", "windows", "linear"))
def image_to_columns(shape: Shape, width: int, form: str) -> nn.Module:
    _, c, height, breadth = shape
    k = 2 if min(height, breadth) > 1 else 1

    def run(net: Function, x: Tensor) -> Tensor:
        if form == "windows":
            cut = x.unfold(2, k, 1).unfold(3, k, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
            return net.a(cut).permute(0, 3, 1, 2)
        columns = F.unfold(x, k)
        if form == "linear":
            return net.a(columns.transpose(1, 2)).mean(1)
        mixed = net.a(columns.transpose(1, 2)).transpose(1, 2)
        return mixed.reshape(len(x), width, height - k + 1, breadth - k + 1)

    return Function(run, a=nn.Linear(c * k * k, width))


@kind("unfold", IMAGE)
def columns_to_image(shape: Shape, width: int) -> nn.Module:
    """Columns of pixels mixed and folded back, overlapping."""
    size = tuple(shape[2:])
    k = 2 if min(size) > 1 else 1
    return Function(
        lambda net, x: F.fold(F.unfold(net.a(x), k).tanh(), size, k), a=nn.Conv2d(shape[1], width, 1)
    )


@kind("unfold positions", IMAGE)
def patches(shape: Shape, width: int) -> nn.Module:
    """Squares of pixels as tokens, by reshaping."""
    _, c, height, breadth = shape
    p = 2 if height % 2 == 0 and breadth % 2 == 0 else 1

    def run(net: Function, x: Tensor) -> Tensor:
        cut = x.reshape(len(x), c, height // p, p, breadth // p, p).permute(0, 2, 4, 3, 5, 1)
        return net.a(cut.flatten(3)).permute(0, 3, 1, 2)

    return Function(run, a=nn.Linear(p * p * c, width))


@kind("convolution outer", IMAGE)
def dynamic_convolution(shape: Shape, width: int) -> nn.Module:
    """Several filters, weighted by the image itself."""

    def run(net: Function, x: Tensor) -> Tensor:
        attention = net.a(x.mean((2, 3))).softmax(-1)
        weight = torch.einsum("bk,koihw->boihw", attention, net.weight).flatten(0, 1)
        out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, padding=1, groups=len(x))
        return out.view(len(x), width, *x.shape[2:])

    return Function(run, a=nn.Linear(shape[1], 3), weight=free(3, width, shape[1], 3, 3))
