"""Images that are drawn where there are no data: things in front of each other, in the colours of an update."""

from __future__ import annotations

import torch
from torch import Tensor

DISCS = 40
LEAST_RADIUS = 2.0


def drawn_images(update: Tensor, like: Tensor, samples: int, seed: int) -> Tensor:
    r"""Draw images of discs that lie over each other.

    .. math:: p(r) \propto r^{-3}, \qquad c \sim \mathcal N(0, C), \qquad C \propto \sum_{o, p} \Delta W_{o:p}\,
        \Delta W_{o:p}^\top

    Radii r from 2 pixels to half of the image, so that images look alike at every size and have edges, as photographs
    do. Every disc has one color c. A gradient of the first convolution is a sum of products with patches of its
    inputs, so the entries of its update o at position p vary with the channels of the fine-tune's own images.

    Args:
        update: of the first convolution's weight, (outputs, channels, height, width).
        like: images, (N, channels, height, width).
        samples: how many are drawn.
        seed: of the draw.

    Returns:
        Images of mean 0 and standard deviation 1, (samples, channels, height, width).

    Example:
        >>> drawn_images(torch.ones(4, 3, 3, 3), torch.zeros(2, 3, 8, 8), 5, 0).shape
        torch.Size([5, 3, 8, 8])

    Source: Ann Lee, David Mumford and Jinggang Huang, "Occlusion models for natural images" (2001). Networks learn to
    see from such images: Manel Baradad and others, "Learning to see by looking at noise" (2021).
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = like.shape[-2:]
    root = _root_of_colors(update)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    smallest, largest = LEAST_RADIUS**-2, max(LEAST_RADIUS, min(height, width) / 2) ** -2

    def color() -> Tensor:
        return (torch.randn(samples, len(root), generator=generator) @ root.T)[:, :, None, None]

    images = color().expand(-1, -1, height, width).clone()
    for _ in range(DISCS):
        radius = (smallest + torch.rand(samples, generator=generator) * (largest - smallest)) ** -0.5
        # Centers lie a fifth of the image outside of it too, so that discs are cut off by its edge.
        middle = (1.4 * torch.rand(2, samples, generator=generator) - 0.2)[:, :, None, None]
        squared = (rows - height * middle[0]) ** 2 + (columns - width * middle[1]) ** 2
        inside = squared < radius[:, None, None] ** 2
        images = torch.where(inside[:, None], color(), images)
    images = images - images.mean()
    return (images / images.std()).to(like)


def _root_of_colors(update: Tensor) -> Tensor:
    """Return a square root of the covariance of channels."""
    channels = update.detach().float().cpu().transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh(channels @ channels.T)
    return vectors * (values.clamp_min(0) / values.sum()).sqrt()
