"""Norms with gains and shifts: what they multiply with their gains, and gains and shifts that fit outputs."""

from __future__ import annotations

import copy
from collections import Counter

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CHANNELS_SECOND = (_BatchNorm, nn.GroupNorm)
CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm)


def norm_layers(network: nn.Module) -> list[str]:
    """List the norms with gains of their own.

    They have one for each channel, and come by name.

    >>> norm_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)))
    ['1']
    """
    owners = Counter(id(p) for child in network.modules() for p in child._parameters.values())
    names = []
    for name, layer in network.named_modules():
        kinds = [kind for kind in (*CHANNELS_SECOND, *CHANNELS_LAST) if isinstance(layer, kind)]
        gain, shift = (layer._parameters.get(part) for part in ("weight", "bias"))
        if not kinds or gain is None or gain.ndim != 1:
            continue
        plain = "forward" not in vars(layer) and type(layer).forward is kinds[0].forward
        if plain and all(p is None or owners[id(p)] == 1 for p in (gain, shift)):
            names.append(name)
    return names


def fitted_gains(normalized: Tensor, missing: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    r"""Fit gains and shifts to what is missing.

    .. math:: \min_{a, b} \sum (a\,\hat x + b - m)^2 + r\,\bar g\,(a^2 + b^2)

    with :math:`\bar g` the mean of the squares of :math:`\hat x` and 1.

    Args:
        normalized: :math:`\hat x`, (rows, channels).
        missing: m, (rows, channels).
        ridge: r.

    Returns:
        Gains and shifts, (channels,).

    Example:
        >>> import torch
        >>> x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> gains, shifts = fitted_gains(x, 2 * x + 1, 0.0)
        >>> torch.allclose(gains, torch.full((2,), 2.0).double()), torch.allclose(shifts, torch.ones(2).double())
        (True, True)
    """
    squares, sums, rows = normalized.square().sum(0), normalized.sum(0), float(len(normalized))
    lift = ridge * (squares + rows) / 2
    first, last = squares + lift, rows + lift
    along, total = (normalized * missing).sum(0), missing.sum(0)
    determinant = (first * last - sums.square()).clamp_min(1e-30)
    return (last * along - sums * total) / determinant, (first * total - sums * along) / determinant


def normalized(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Run a norm without its gain and shift.

    >>> import torch
    >>> norm = nn.LayerNorm(2)
    >>> _ = norm.weight.data.fill_(7.0)
    >>> normalized(norm, torch.tensor([[1.0, 3.0]])).round().tolist()
    [[-1.0, 1.0]]
    """
    bare = copy.copy(layer)
    bare.__dict__["_parameters"] = dict.fromkeys(layer._parameters)
    return bare.forward(inputs)


def channel_rows(layer: nn.Module, values: Tensor) -> Tensor:
    """List a norm's channels at every position, (rows, channels).

    >>> import torch
    >>> channel_rows(nn.BatchNorm2d(3), torch.zeros(2, 3, 5, 5)).shape
    torch.Size([50, 3])
    """
    if isinstance(layer, CHANNELS_SECOND):
        values = values.movedim(1, -1)
    return values.reshape(-1, values.shape[-1])
