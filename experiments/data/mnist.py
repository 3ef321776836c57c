"""MNIST from its IDX files, plain or gzipped, as torchvision lays them out.

Source: Yann LeCun, Corinna Cortes and Christopher J. C. Burges,
"The MNIST database of handwritten digits" (1998).
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.data.image_data import ImageData, first_images, standardized
from sinkhorn_rebasin.errors import DataError


def load_mnist(root: Path, train_images: int | None = None) -> ImageData:
    """Read MNIST from `root/MNIST/raw`: images (N, 1, 28, 28), the first `train_images` for training.

    Raises:
        DataError: a file is missing or is no IDX file of bytes.
    """
    folder = root / "MNIST" / "raw"
    images, labels = _split(folder, "train")
    count = first_images(train_images, len(labels), "MNIST")
    return standardized((images[:count], labels[:count]), _split(folder, "t10k"), classes=10, name="mnist")


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes, `path` or `path` with `.gz` appended.

    Raises:
        DataError: neither file is there, or the content is something else.
    """
    zipped = path.with_name(path.name + ".gz")
    if path.is_file():
        content = path.read_bytes()
    elif zipped.is_file():
        content = gzip.decompress(zipped.read_bytes())
    else:
        raise DataError(
            f"Expected {path} or {zipped.name} beside it but got neither. "
            "torchvision.datasets.MNIST(root, download=True) makes them."
        )
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(
            f"Expected an IDX file of unsigned bytes at {path} but got the start {content[:4]!r}."
        )
    start = 4 * (1 + content[3])
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"Expected {math.prod(shape)} bytes of data {shape} in {path} but got {len(content) - start}."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _split(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte")
    return images.unsqueeze(1), read_idx(folder / f"{prefix}-labels-idx1-ubyte")
