"""What an estimate of the curvature is to the losses that use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError


class QuadraticForm(Protocol):
    """Describe a positive semidefinite matrix over the parameters.

    The matrix F is symmetric.
    """

    def quadratic(self, difference: StateLike) -> Tensor:
        """Return δᵀ F δ, differentiable in the difference.

        It is a scalar.
        """

    def trace(self) -> float:
        """Return tr F.

        It is the sum of the curvatures of all single numbers.
        """


def entry(difference: StateLike, name: str, shape: Iterable[int]) -> Tensor:
    """Return the named tensor of a difference.

    Raises:
        ArchitectureError: when it is missing or has another shape than the curvature was measured with.
    """
    if name not in difference:
        raise ArchitectureError(
            f"Expected the curvature of the network at hand but it was measured with a parameter {name!r}, which "
            f"this one lacks."
        )
    if tuple(difference[name].shape) != tuple(shape):
        raise ArchitectureError(
            f"Expected the curvature of the network at hand but it was measured with {name!r} of shape "
            f"{tuple(shape)} and got shape {tuple(difference[name].shape)}."
        )
    return difference[name]


def matched(factor: Tensor, difference: Tensor) -> Tensor:
    """Move a part of the curvature beside a difference.

    It comes to the difference's device, in a type at least as wide.
    """
    return factor.to(difference.device, torch.promote_types(factor.dtype, difference.dtype))
