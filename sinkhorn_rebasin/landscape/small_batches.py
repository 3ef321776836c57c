"""Batches of images that a processor runs fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ELEMENTS = 2**17
"""A part of a batch has at most so many elements of input: activations of larger ones leave the cache."""
ROUNDING, ROUNDING_OF_HALF = 1e-4, 1e-2
"""Relative difference of losses below which two runs count as the same, in single precision and below it."""


def in_small_batches(batches: list[Any]) -> list[Any]:
    """Split batches of images; lay channels out last.

    A convolution network on a processor evaluates these up to twice as fast: activations stay in the cache. On other
    devices, and batches that are no pair of images (N, C, H, W) and labels (N, ...), nothing is done.

    Args:
        batches: of (inputs, labels), or anything else.

    Returns:
        The same samples in the same order, or what was given.

    Example:
        >>> parts = in_small_batches([(torch.zeros(100, 3, 32, 32), torch.zeros(100, dtype=torch.long))])
        >>> [len(labels) for _, labels in parts], parts[0][0].stride()
        ([42, 42, 16], (3072, 1, 96, 3))
    """
    if not all(_is_labelled_images(batch) for batch in batches):
        return batches
    parts: list[Any] = []
    for images, labels in batches:
        size = max(1, ELEMENTS // max(1, images[0].numel()))
        for some, theirs in zip(images.split(size), labels.split(size), strict=True):
            parts.append((some.contiguous(memory_format=torch.channels_last), theirs))
    return parts


def agree(
    first: tuple[float, float | None], second: tuple[float, float | None], rounding: float = ROUNDING
) -> bool:
    """Tell whether figures are equal but for rounding.

    They are not where a network or a criterion compares the samples of a batch.

    >>> agree((0.5, 0.9), (0.50001, 0.9)), agree((0.5, 0.9), (0.501, 0.9)), agree((0.5, None), (0.5, 0.9))
    (True, False, False)
    """
    if (first[1] is None) != (second[1] is None):
        return False
    close = abs(first[0] - second[0]) <= rounding * abs(first[0])
    return close and (first[1] is None or abs(first[1] - (second[1] or 0.0)) <= ROUNDING_OF_HALF)


def _is_labelled_images(batch: Any) -> bool:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return False
    images, labels = batch
    both = isinstance(images, Tensor) and isinstance(labels, Tensor)
    return (
        both
        and images.ndim == 4
        and images.is_floating_point()
        and images.device.type == "cpu"
        and labels.ndim > 0
        and 0 < len(images) == len(labels)
    )
