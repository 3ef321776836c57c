"""CIFAR-100 from the official "python version".

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.data.image_data import ImageData, first_images, standardized
from experiments.data.pickled_arrays import existing_file, unpickle_arrays
from sinkhorn_rebasin.errors import DataError

FOLDER = "cifar-100-python"


def load_cifar100(root: Path, train_images: int | None = None) -> ImageData:
    """Read CIFAR-100 with its 100 fine labels from `root/cifar-100-python`: images (N, 3, 32, 32).

    Raises:
        DataError: the folder or a file in it is missing or unreadable.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        raise DataError(
            f"Expected the folder {FOLDER} in {root} but there is none. "
            "torchvision.datasets.CIFAR100(root, download=True) makes it."
        )
    train, test = _read(folder / "train", train_images), _read(folder / "test", None)
    return standardized(train, test, classes=100, name="cifar100")


def _read(file: Path, count: int | None) -> tuple[Tensor, Tensor]:
    batch = unpickle_arrays(existing_file(file))
    labels = np.asarray(batch[b"fine_labels"], np.int64)
    images = np.asarray(batch[b"data"]).reshape(-1, 3, 32, 32)
    count = first_images(count, len(labels), "CIFAR-100")
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])
