"""Linear and convolution layers as one matrix that is applied at many positions: what goes in, what comes out."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin.networks.layers import is_plain_affine

SharedLayer: TypeAlias = nn.Linear | _ConvNd
"""A layer whose weight is one matrix, or one per convolution group."""


def shared_layers(network: nn.Module) -> dict[str, SharedLayer]:
    """Find the layers that own their weight and bias.

    They are linear and convolution layers that run as PyTorch's do, by name. Left out are transposed convolutions,
    layers whose weight is computed from other parameters or is a weight of another layer too, and those with a
    forward of their own.

    >>> list(shared_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))))
    ['0', '2']
    """
    owners = Counter(id(p) for child in network.modules() for p in child._parameters.values())
    found: dict[str, SharedLayer] = {}
    for name, child in network.named_modules():
        if isinstance(child, _ConvTransposeNd) or not is_plain_affine(child):
            continue
        if child._parameters.get("weight") is None:
            continue
        own = [child.weight] if child.bias is None else [child.weight, child._parameters.get("bias")]
        if all(p is not None and p.is_floating_point() and owners[id(p)] == 1 for p in own):
            found[name] = cast(SharedLayer, child)
    return found


def groups_of(layer: SharedLayer) -> int:
    """Count a layer's matrices, one per convolution group."""
    return layer.groups if isinstance(layer, _ConvNd) else 1


def input_rows(layer: SharedLayer, inputs: Tensor) -> Tensor:
    """List what each position multiplies with the weight.

    A one for the bias comes last. The rows are (groups, positions, inputs).

    >>> layer = nn.Conv2d(3, 4, 2, bias=False)
    >>> image = torch.randn(5, 3, 6, 6)
    >>> out = input_rows(layer, image) @ layer.weight.reshape(1, 4, 12).mT
    >>> torch.allclose(output_rows(layer, layer(image)), out, atol=1e-5)
    True
    """
    if isinstance(layer, _ConvNd):
        rows = _patches(layer, inputs)
    else:
        rows = inputs.reshape(1, -1, inputs.shape[-1])
    return rows if layer.bias is None else F.pad(rows, (0, 1), value=1.0)


def output_rows(layer: SharedLayer, outputs: Tensor) -> Tensor:
    """List what each position gives.

    ``outputs`` may be gradients with respect to them, too. The rows are (groups, positions, outputs).
    """
    if not isinstance(layer, _ConvNd):
        return outputs.reshape(1, -1, outputs.shape[-1])
    last = outputs.movedim(-1 - len(layer.kernel_size), -1)
    return last.reshape(-1, layer.groups, layer.out_channels // layer.groups).movedim(1, 0)


def _patches(layer: _ConvNd, inputs: Tensor) -> Tensor:
    axes = len(layer.kernel_size)
    images = inputs if inputs.ndim == axes + 2 else inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    images = F.pad(images, layer._reversed_padding_repeated_twice, mode=mode)
    for axis, (size, step, gap) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        images = images.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    rows = images.movedim(1, 1 + axes)  # (samples, positions..., channels, kernel...)
    width = layer.in_channels // layer.groups * torch.Size(layer.kernel_size).numel()
    return rows.reshape(-1, layer.groups, width).movedim(1, 0)
