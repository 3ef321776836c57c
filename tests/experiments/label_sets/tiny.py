"""Data of a pixel an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experiments.data import ImageData


def images_of(labels: Sequence[int]) -> ImageData:
    """Return images that hold their number, with these labels."""
    images, classes = torch.arange(float(len(labels))).reshape(-1, 1, 1, 1), torch.tensor(labels)
    return ImageData(images, classes, images, classes, 10, "tiny")
