"""A layer and the batch norm behind it, read and written as one affine map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.merging.partial.layer_places import LayerPlace
from sinkhorn_rebasin.merging.partial.least_squares import LeastSquares


def folded(network: nn.Module, place: LayerPlace) -> tuple[Tensor, Tensor]:
    r"""Return a layer folded with its batch norm.

    Weight and intercept are in double precision.

    .. math:: \gamma \odot \frac{W x + b - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
    """
    layer: Any = network.get_submodule(place.path)
    weight = layer.weight.detach().double()
    bias = torch.zeros(len(weight)).to(weight) if layer.bias is None else layer.bias.detach().double()
    if place.norm is None:
        return weight, bias
    norm: Any = network.get_submodule(place.norm)
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.detach().double() + scale * (bias - norm.running_mean.double())
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), shift


def write_layer(
    network: nn.Module, place: LayerPlace, weight: Tensor, intercept: Tensor | None, sums: LeastSquares
) -> None:
    """Give a layer a weight and an intercept.

    Behind the layer, a batch norm gets the statistics of these outputs, and undoes them by its gain and shift.
    """
    layer: Any = network.get_submodule(place.path)
    layer.weight.copy_(weight)
    if place.norm is None:
        if intercept is not None:
            layer.bias.copy_(intercept)
        return
    if layer.bias is not None:
        layer.bias.zero_()
    norm: Any = network.get_submodule(place.norm)
    mean, variance = sums.output_moments(weight.flatten(1))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
    norm.bias.copy_(mean if intercept is None else mean + intercept)
