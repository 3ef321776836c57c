"""Inputs between inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.structures import flattened, tensors_in


def mixed(first: ExampleInputs, second: ExampleInputs, share: Tensor) -> ExampleInputs:
    r"""Mix two batches sample by sample.

    This is :math:`s\,x + (1-s)\,x'`. What is no floating point number is that of the first.

    Args:
        first, second: inputs of one structure, batched along the first axis.
        share: (samples,), s.

    Example:
        >>> mixed(torch.tensor([[4.0], [4.0]]), torch.tensor([[0.0], [0.0]]), torch.tensor([0.5, 1.0])).tolist()
        [[2.0], [4.0]]

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization" (2018).
    """

    def between(one: Tensor, other: Tensor) -> Tensor:
        """Mix two tensors of floating point numbers.

        Of others the first is returned.
        """
        if not one.is_floating_point():
            return one
        weights = share.to(one).reshape(-1, *[1] * (one.dim() - 1))
        return torch.lerp(other, one, weights.expand_as(one))

    tensors, rebuilt = flattened(first)
    return rebuilt([between(*pair) for pair in zip(tensors, tensors_in(second), strict=True)])
