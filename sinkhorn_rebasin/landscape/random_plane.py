"""Random directions that are as large as the filters of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.landscape.plane import Plane, inner, normalised, others_of, weights_of
from sinkhorn_rebasin.networks.architecture import double_precision, real_view, tensors_of
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
    state = tensors_of(network)
    weights = weights_of(network, state)
    first, second = (filter_normalised(weights, generator) for _ in range(2))
    first = normalised(first, "a network with weights of two axes")
    along = inner(second, first)
    second = {name: tensor - along * first[name] for name, tensor in second.items()}
    return Plane(
        network,
        weights,
        (first, normalised(second, "a network with more than one weight")),
        {"network": (0.0, 0.0)},
        {"network": others_of(network, state)},
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
            direction[name] = torch.zeros_like(double_precision(tensor))
            continue
        rows, own = normal_like(tensor, generator).flatten(1), double_precision(tensor).flatten(1)
        scaled = rows * (own.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True))
        direction[name] = scaled.view(tensor.shape)
    return direction


def normal_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Draw normal numbers shaped like a tensor.

    They are in double precision. Those of a complex tensor are complex: pairs of real ones.

    >>> normal_like(torch.ones(2, 3) * 1j, torch.Generator().manual_seed(0)).dtype
    torch.complex128
    """
    shape = real_view(tensor).shape
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    drawn = drawn.to(tensor.device)
    return torch.view_as_complex(drawn) if tensor.is_complex() else drawn
