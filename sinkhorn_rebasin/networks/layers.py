"""What single layers do: which of them are plain, and what they are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

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


def first_argument(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return what a layer was called with.

    The layer has one input, given by position or by name.

    >>> first_argument((1,), {}), first_argument((), {"input": 2})
    (1, 2)
    """
    return (*arguments, *keywords.values())[0]
