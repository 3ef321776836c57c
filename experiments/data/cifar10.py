"""CIFAR-10 from the official batches, or from packed JPEG archives.

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.data.image_data import ImageData, first_images, standardised
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
    return standardised(train, test, classes=10, name="cifar10")


def _read_batches(folder: Path, split: str, count: int | None) -> tuple[Tensor, Tensor]:
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    batches = [_unpickle(_existing(folder / name)) for name in names]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.asarray(batch[b"labels"], np.int64) for batch in batches])
    count = first_images(count, len(labels), "CIFAR-10")
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


def _read_packed(folder: Path, split: str, count: int | None) -> tuple[Tensor, Tensor]:
    from PIL import Image

    with np.load(_existing(folder / f"{split}.npz"), allow_pickle=False) as arrays:
        header, blob, offsets = arrays["header"].tobytes(), arrays["blob"].tobytes(), arrays["offsets"]
        labels = arrays["labels"].astype(np.int64)
    count = first_images(count, len(labels), "CIFAR-10")
    images = np.empty((count, 32, 32, 3), np.uint8)
    for i in range(count):
        with Image.open(io.BytesIO(header + blob[offsets[i] : offsets[i + 1]])) as image:
            images[i] = np.asarray(image)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels[:count])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"Expected the file {path} but got none of that name. The data set is incomplete.")
    return path


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle arrays of numbers and nothing else, so that a prepared file can run no code."""

    # numpy renamed the module this function lives in; a pickled array leads to it in every version.
    allowed = {  # noqa: RUF012
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.allowed:
            return self.allowed[name]
        raise DataError(f"Expected arrays, lists and numbers in a CIFAR-10 batch but got {module}.{name}.")


def _unpickle(path: Path) -> dict[bytes, Any]:
    with path.open("rb") as file:
        content: dict[bytes, Any] = _ArrayUnpickler(file, encoding="bytes").load()
    return content
