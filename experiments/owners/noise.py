"""Noise that a server draws without data, to ask networks what they know."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def noise_like_data(
    networks: Sequence[nn.Module], shares: Sequence[float], count: int, shape: Sequence[int], seed: int = 0
) -> Tensor:
    r"""Draw noise that varies where first layers look.

    .. math:: x \sim \mathcal N(0, C), \qquad C \propto \sum_m s_m W_m^\top W_m, \quad \operatorname{tr} C = d

    with W the first layer's weights. Gradients of a first layer are sums of its inputs, so training leaves the
    directions of the data in it. Where the first layer is no linear one over all inputs, the noise is white.

    Args:
        networks: as owners sent them.
        shares: s, of the samples.
        count: how many inputs.
        shape: of one.
        seed: of what is drawn.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> with torch.no_grad():
        ...     _ = net[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]))
        >>> noise = noise_like_data([net], [1.0], 1000, (1, 2, 2))
        >>> [round(each, 1) for each in noise.flatten(1).square().mean(0).tolist()]
        [0.8, 3.2, 0.0, 0.0]
    """
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    noise = torch.randn(count, size, generator=generator)
    first = [next(p for p in network.parameters() if p.dim() > 1).detach() for network in networks]
    if all(weight.shape[1:] == (size,) for weight in first):
        covariance = torch.stack(
            [share * weight.T @ weight for share, weight in zip(shares, first, strict=True)]
        ).sum(0)
        values, directions = torch.linalg.eigh(covariance * size / covariance.trace())
        noise = noise * values.clamp(min=0).sqrt() @ directions.T
    return noise.reshape(count, *shape)
