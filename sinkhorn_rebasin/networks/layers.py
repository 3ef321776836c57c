"""What single layers do: which of them are plain, and what they are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sinkhorn_rebasin.networks.architecture import tied_names

_AFFINE = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def is_plain_affine(layer: nn.Module) -> bool:
    """Tell whether a layer computes as PyTorch's do.

    It is a linear or convolution layer without a forward of its own.

    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> is_plain_affine(nn.Linear(2, 2)), is_plain_affine(Scaled(2, 2)), is_plain_affine(nn.ReLU())
    (True, False, False)
    """
    if "forward" in vars(layer) or not isinstance(layer, (nn.Linear, _ConvNd)):
        return False
    names = ("forward", "_conv_forward", "_output_padding")
    return any(
        all(getattr(type(layer), name, None) is getattr(plain, name, None) for name in names)
        for plain in _AFFINE
        if isinstance(layer, plain)
    )


def multiplied_weights(network: nn.Module) -> dict[str, str | None]:
    """Name the weights of linear layers and convolutions.

    They are PyTorch's own, and come with their biases.

    Convolutions of several groups, and tensors that have other names as well, are left out.

    >>> multiplied_weights(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Conv1d(2, 1, 3, bias=False)))
    {'0.weight': '0.bias', '2.weight': None}
    """
    tied = {name for names in tied_names(network) for name in names}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers: dict[str, Any] = {
        f"{path}." if path else "": layer
        for path, layer in network.named_modules()
        if type(layer) in kinds and is_plain_affine(layer) and getattr(layer, "groups", 1) == 1
    }
    return {
        f"{path}weight": f"{path}bias" if layer.bias is not None and f"{path}bias" not in tied else None
        for path, layer in layers.items()
        if f"{path}weight" not in tied
    }


def is_folded(layer: nn.Module) -> bool:
    """Tell whether a layer is a batch norm whose statistics change nothing in eval mode.

    They are a mean of zero and a variance of 1 - epsilon, as :func:`canonicalize` leaves them; a new batch norm has
    a variance of one.

    >>> norm = nn.BatchNorm1d(2)
    >>> before, _ = is_folded(norm), norm.running_var.fill_(1 - norm.eps)
    >>> before, is_folded(norm)
    (False, True)
    """
    if not isinstance(layer, _BatchNorm) or layer.running_mean is None or layer.running_var is None:
        return False
    neutral = torch.full_like(layer.running_var, 1 - layer.eps)
    return layer.eps > 0 and torch.equal(layer.running_var, neutral) and not bool(layer.running_mean.any())


def folded_in(network: nn.Module) -> frozenset[str]:
    """Name the batch norms of a network that were folded into the layers before them.

    >>> folded_in(nn.Sequential(nn.BatchNorm1d(2)))
    frozenset()
    """
    return frozenset(name for name, layer in network.named_modules() if is_folded(layer))


def first_argument(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return what a layer was called with.

    The layer has one input, given by position or by name.

    >>> first_argument((1,), {}), first_argument((), {"input": 2})
    (1, 2)
    """
    return (*arguments, *keywords.values())[0]
