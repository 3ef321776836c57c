"""Rotated images, made once as tensors."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["nearest", "bilinear"]


def rotated(images: Tensor, degrees: float, interpolation: Interpolation = "nearest") -> Tensor:
    """Return images turned counter-clockwise about their centre, the corners filled with the darkest value.

    Args:
        images: (N, C, H, W), square.
        degrees: the angle.
        interpolation: between pixels.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> rotated(image, 90).squeeze()
        tensor([[2., 4.],
                [1., 3.]])
    """
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    darkest = images.min()
    parts = []
    for part in (images - darkest).split(4096):
        grid = F.affine_grid(turn.to(part).expand(len(part), 2, 3), list(part.shape), align_corners=False)
        parts.append(F.grid_sample(part, grid, mode=interpolation, align_corners=False))
    return torch.cat(parts) + darkest
