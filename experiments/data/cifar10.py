"""CIFAR-10 from the official batches, or from packed JPEG archives.

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.data.image_data import ImageData, first_images, standardized
from experiments.data.pickled_arrays import existing_file, unpickle_arrays
from sinkhorn_rebasin.errors import DataError

BATCHES = "cifar-10-batches-py"
PACKED = "cifar-10-jpeg"


def load_cifar10(root: Path, train_images: int | None = None) -> ImageData:
    """Read CIFAR-10: images (N, 3, 32, 32), the first `train_images` of the 50,000 for training.

    `root/cifar-10-batches-py` (the official "python version", as torchvision unpacks it) is taken when it is
    there, else `root/cifar-10-jpeg` (`train.npz` and `test.npz`: JPEGs that share their first bytes).

    Raises:
        DataError: both folders are missing, or a file in the one taken is missing or unreadable.
    """
    if (root / BATCHES).is_dir():
        read, folder = _read_batches, root / BATCHES
    elif (root / PACKED).is_dir():
        read, folder = _read_packed, root / PACKED
    else:
        raise DataError(
            f"Expected the folder {BATCHES} or {PACKED} in {root} but got neither. "
            "torchvision.datasets.CIFAR10(root, download=True) makes the first."
        )
    train, test = read(folder, "train", train_images), read(folder, "test", None)
    return standardized(train, test, classes=10, name="cifar10")


def _read_batches(folder: Path, split: str, count: int | None) -> tuple[Tensor, Tensor]:
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    batches = [unpickle_arrays(existing_file(folder / name)) for name in names]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.asarray(batch[b"labels"], np.int64) for batch in batches])
    count = first_images(count, len(labels), "CIFAR-10")
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


def _read_packed(folder: Path, split: str, count: int | None) -> tuple[Tensor, Tensor]:
    from PIL import Image

    with np.load(existing_file(folder / f"{split}.npz"), allow_pickle=False) as arrays:
        header, blob, offsets = arrays["header"].tobytes(), arrays["blob"].tobytes(), arrays["offsets"]
        labels = arrays["labels"].astype(np.int64)
    count = first_images(count, len(labels), "CIFAR-10")
    images = np.empty((count, 32, 32, 3), np.uint8)
    for i in range(count):
        with Image.open(io.BytesIO(header + blob[offsets[i] : offsets[i + 1]])) as image:
            images[i] = np.asarray(image)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels[:count])
