"""Normalisation over batches, channels, groups, positions and instances."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import IMAGE, LAST, SIGNAL, VECTOR, VOLUME, kind
from tests.zoo.case import Function

BATCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}
# Large enough that normalising a channel that hardly varies does not blow up rounding.
EPS = 0.1


@kind("normalisation", (VECTOR, SIGNAL, IMAGE, VOLUME), affine=(True, False), statistics=(True, True, False))
def batch_norm(shape: Shape, width: int, affine: bool, statistics: bool) -> nn.Module:
    return BATCH[len(shape)](shape[1], eps=EPS, affine=affine, track_running_stats=statistics)


@kind("normalisation", (IMAGE, SIGNAL), affine=(True, False), statistics=(False, True))
def instance_norm(shape: Shape, width: int, affine: bool, statistics: bool) -> nn.Module:
    layer = INSTANCE[len(shape)](shape[1], eps=EPS, affine=affine, track_running_stats=statistics)
    return layer if math.prod(shape[2:]) > 1 or statistics else nn.Identity()


@kind("normalisation", LAST, affine=(True, False))
def layer_norm(shape: Shape, width: int, affine: bool) -> nn.Module:
    return nn.LayerNorm(shape[-1], eps=EPS, elementwise_affine=affine)


@kind("normalisation", IMAGE)
def layer_norm_of_images(shape: Shape, width: int) -> nn.Module:
    return nn.LayerNorm(shape[1:], eps=EPS)


@kind("normalisation", LAST, written_out=(False, True))
def rms_norm(shape: Shape, width: int, written_out: bool) -> nn.Module:
    if not written_out:
        return nn.RMSNorm(shape[-1], eps=EPS)
    return Function(
        lambda net, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * net.weight,
        weight=free(shape[-1]),
    )


@kind("normalisation", (IMAGE, SIGNAL, VECTOR), groups=(2, 1, 3, 0))
def group_norm(shape: Shape, width: int, groups: int) -> nn.Module:
    c = shape[1]
    return nn.GroupNorm(c if groups == 0 else math.gcd(c, groups), c, eps=EPS)


@kind("normalisation", LAST)
def unit_length(shape: Shape, width: int) -> nn.Module:
    return Function(lambda net, x: F.normalize(x, dim=-1, eps=EPS) * net.scale, scale=free(1))


@kind("normalisation", LAST)
def standardized(shape: Shape, width: int) -> nn.Module:
    return Function(lambda net, x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + EPS))


@kind("normalisation", IMAGE)
def response_norm(shape: Shape, width: int) -> nn.Module:
    """ConvNeXt's: channels compete by their norm over positions."""

    def run(net: Function, x: torch.Tensor) -> torch.Tensor:
        size = x.norm(dim=(2, 3), keepdim=True)
        return x + net.scale * (x * (size / (size.mean(1, keepdim=True) + EPS))) + net.shift

    return Function(run, scale=free(shape[1], 1, 1), shift=free(shape[1], 1, 1))


@kind("normalisation", (IMAGE, SIGNAL))
def local_response(shape: Shape, width: int) -> nn.Module:
    return nn.LocalResponseNorm(2)
