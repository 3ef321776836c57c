"""Pooling and interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.plan import IMAGE, SIGNAL, VOLUME, kind
from tests.zoo.case import Function

POOLS = ("max", "avg", "adaptive_avg", "adaptive_max", "lp", "max_same")


@kind("pooling", (IMAGE, SIGNAL, VOLUME), how=POOLS)
def pool(shape: Shape, width: int, how: str) -> nn.Module:
    rank = len(shape) - 2
    k = min(2, *shape[2:])
    layers = {
        "max": lambda: getattr(nn, f"MaxPool{rank}d")(k),
        "avg": lambda: getattr(nn, f"AvgPool{rank}d")(k, 1),
        "adaptive_avg": lambda: getattr(nn, f"AdaptiveAvgPool{rank}d")(2),
        "adaptive_max": lambda: getattr(nn, f"AdaptiveMaxPool{rank}d")(2),
        "lp": lambda: nn.Sequential(nn.Softplus(), getattr(nn, f"LPPool{rank}d")(2.0, k)),
        "max_same": lambda: getattr(nn, f"MaxPool{rank}d")(3, 1, 1),
    }
    return layers[how]()


@kind(
    "interpolation", IMAGE, mode=("nearest", "bilinear", "bicubic", "area", "nearest-exact"), scale=(2.0, 0.5)
)
def resize(shape: Shape, width: int, mode: str, scale: float) -> nn.Module:
    size = [max(1, int(n * scale)) for n in shape[2:]]
    return Function(lambda net, x: F.interpolate(x, size=size, mode=mode))


@kind("interpolation", SIGNAL, mode=("nearest", "linear"))
def resize_signal(shape: Shape, width: int, mode: str) -> nn.Module:
    return Function(lambda net, x: F.interpolate(x, scale_factor=2, mode=mode))


@kind("pooling", IMAGE)
def unpooled(shape: Shape, width: int) -> nn.Module:
    """Maxima put back where they were."""
    k = min(2, *shape[2:])
    size = tuple(shape[2:])

    def run(net: Function, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, k, return_indices=True)
        return F.max_unpool2d(pooled, where, k, output_size=size)

    return Function(run)


@kind("pooling", IMAGE)
def global_pools(shape: Shape, width: int) -> nn.Module:
    """Mean and maximum, and pyramid bins, flattened."""

    def run(net: Function, x: Tensor) -> Tensor:
        bins = F.adaptive_avg_pool2d(x, 2).flatten(1)
        return net.a(torch.cat([x.mean((2, 3)), x.amax((2, 3)), bins], 1))

    return Function(run, a=nn.Linear(6 * shape[1], width))


@kind("interpolation", IMAGE)
def warped(shape: Shape, width: int) -> nn.Module:
    """Sampled on a grid that the image itself chooses."""

    def run(net: Function, x: Tensor) -> Tensor:
        theta = net.a(x.mean((2, 3))).tanh().view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    return Function(run, a=nn.Linear(shape[1], 6))
