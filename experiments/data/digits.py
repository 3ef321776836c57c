"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
UCI Machine Learning Repository (1998).
"""

from __future__ import annotations

import torch

from experiments.data.image_data import ImageData, first_images, standardized

TEST_IMAGES = 360


def load_digits(train_images: int | None = None) -> ImageData:
    """Return scikit-learn's digits: images (N, 1, 8, 8), 360 of them for testing, always the same ones.

    Example:
        >>> data = load_digits()
        >>> data.train_images.shape == (1437, 1, 8, 8) and data.test_images.shape == (360, 1, 8, 8)
        True
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images, labels = torch.from_numpy(bunch.images).unsqueeze(1)[order], torch.from_numpy(bunch.target)[order]
    count = first_images(train_images, len(labels) - TEST_IMAGES, "digits")
    train, test = slice(TEST_IMAGES, TEST_IMAGES + count), slice(TEST_IMAGES)
    return standardized(
        (images[train], labels[train]), (images[test], labels[test]), classes=10, name="digits"
    )
