"""Images and labels of one data set, standardised and in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from sinkhorn_rebasin.errors import DataError


@dataclass(frozen=True)
class ImageData:
    """Training and test images (N, C, H, W) in float32, each channel with training mean 0 and deviation 1.

    Labels are long integers (N,) in 0 … classes − 1.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    name: str

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of one image."""
        return tuple(self.train_images.shape[1:])

    def train_set(self) -> TensorDataset:
        """Return the training images and labels as a data set."""
        return TensorDataset(self.train_images, self.train_labels)

    def hold_out(self, count: int) -> tuple[ImageData, tuple[Tensor, Tensor]]:
        """Return the data without the last so many training images, and those images with their labels.

        Raises:
            DataError: no training image would be left.
        """
        left = len(self.train_labels) - count
        if count < 0 or left < 1:
            raise DataError(f"Expected to hold out 0 to {len(self.train_labels) - 1} images but got {count}.")
        images, labels = self.train_images, self.train_labels
        kept = replace(self, train_images=images[:left], train_labels=labels[:left])
        return kept, (images[left:], labels[left:])

    def channels_last(self) -> ImageData:
        """Return the same images with their channels last in memory, fastest for bfloat16 on processors.

        Example:
            >>> images, labels = torch.randn(2, 3, 4, 4), torch.tensor([0, 1])
            >>> data = ImageData(images, labels, images, labels, 2, "noise").channels_last()
            >>> torch.equal(data.train_images, images), data.train_images.stride()
            (True, (48, 1, 12, 3))
        """
        train, test = (
            images.contiguous(memory_format=torch.channels_last)
            for images in (self.train_images, self.test_images)
        )
        return replace(self, train_images=train, test_images=test)

    def test_set(self) -> TensorDataset:
        """Return the test images and labels as a data set."""
        return TensorDataset(self.test_images, self.test_labels)


def standardized(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, classes: int, name: str
) -> ImageData:
    """Return (images, labels) pairs as `ImageData`, shifted and scaled per channel by training statistics.

    Raises:
        DataError: images are not (N, C, H, W), or there is not one label in range for each of them.

    Example:
        >>> pair = torch.tensor([0, 255]).view(2, 1, 1, 1), torch.tensor([0, 1])
        >>> data = standardized(pair, pair, classes=2, name="two dots")
        >>> data.train_images.flatten().tolist() == [-1.0, 1.0]
        True
    """
    for images, labels in (train, test):
        _check(images, labels, classes, name)
    deviation, mean = torch.std_mean(train[0].float(), dim=(0, 2, 3), keepdim=True, correction=0)
    scaled = [(images.float() - mean) / deviation for images, _ in (train, test)]
    return ImageData(scaled[0], train[1].long(), scaled[1], test[1].long(), classes, name)


def first_images(count: int | None, available: int, name: str) -> int:
    """Return how many training images to take: `count`, or all of them when it is None.

    Raises:
        DataError: there are not that many.
    """
    if count is None:
        return available
    if not 0 < count <= available:
        raise DataError(f"Expected train_images of {name} in 1 … {available} but got {count}.")
    return count


def _check(images: Tensor, labels: Tensor, classes: int, name: str) -> None:
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise DataError(
            f"Expected {name} images (N, C, H, W) and labels (N,) "
            f"but got {tuple(images.shape)} and {tuple(labels.shape)}."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"Expected {name} labels in 0 … {classes - 1} but got {int(labels.min())} … {int(labels.max())}."
        )
