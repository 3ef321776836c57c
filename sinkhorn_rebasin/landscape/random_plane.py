"""Random directions that are as large as the filters of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.landscape.plane import Plane, inner, normalised, weights_of
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.support import check_values


def random_plane(network: nn.Module, *, generator: torch.Generator | None = None) -> Plane:
    r"""Return a plane of two random directions.

    Each filter of a direction, the weights of one unit, is as long as the network's own:

    .. math:: d_f \leftarrow \frac{d_f}{\lVert d_f \rVert}\, \lVert \theta_f \rVert, \qquad d \sim N(0, 1)

    So the picture does not change when units are scaled. Biases and norm parameters, the tensors of one axis, stay.
    The second direction is made orthogonal to the first. A coordinate of 1 is the length of the first direction.

    Args:
        network: at the origin; never changed.
        generator: draws the directions; without it a fixed one of its own.

    Raises:
        ArchitectureError: a network without weights of two axes.

    Example:
        >>> plane = random_plane(nn.Linear(3, 2))
        >>> plane.marks["network"], float(plane.directions[0]["bias"].abs().sum())
        ((0.0, 0.0), 0.0)

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets" (2018).
    """
    check_values(network)
    generator = generator or torch.Generator().manual_seed(0)
    weights = weights_of(network, tensors_of(network))
    first, second = (filter_normalised(weights, generator) for _ in range(2))
    first = normalised(first, "a network with weights of two axes")
    along = inner(second, first)
    second = {name: tensor - along * first[name] for name, tensor in second.items()}
    state = tensors_of(network)
    others = {name: tensor for name, tensor in state.items() if name not in weights}
    return Plane(
        network,
        weights,
        (first, normalised(second, "a network with more than one weight")),
        {"network": (0.0, 0.0)},
        {"network": others},
    )


def filter_normalised(weights: State, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a direction with filters of equal length.

    Each is as long as that of the weights.

    >>> weights = {"w": torch.tensor([[3.0, 4.0]]), "b": torch.ones(1)}
    >>> direction = filter_normalised(weights, torch.Generator().manual_seed(0))
    >>> round(float(direction["w"].norm()), 6), float(direction["b"])
    (5.0, 0.0)
    """
    direction = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2:
            direction[name] = torch.zeros_like(tensor, dtype=torch.float64)
            continue
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device=generator.device)
        rows, own = drawn.to(tensor.device).flatten(1), tensor.double().flatten(1)
        scaled = rows * (own.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True))
        direction[name] = scaled.view(tensor.shape)
    return direction
