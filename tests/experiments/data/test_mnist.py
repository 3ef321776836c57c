from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from experiments.data import load_mnist
from experiments.data.mnist import read_idx
from sinkhorn_rebasin.errors import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def _idx(values: torch.Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + bytes(values.flatten().tolist())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 12), ("t10k", 5)):
        images = torch.arange(count * 784).view(count, 28, 28) % 251
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        zipped = gzip.compress(_idx(torch.arange(count) % 10))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(zipped)
    return tmp_path


def test_plain_and_gzipped_files(root: Path) -> None:
    raw = read_idx(root / "MNIST" / "raw" / "train-images-idx3-ubyte")
    assert torch.equal(raw, (torch.arange(12 * 784).view(12, 28, 28) % 251).byte())
    data = load_mnist(root)
    assert data.train_images.shape == (12, 1, 28, 28)
    assert data.test_labels.tolist() == [0, 1, 2, 3, 4]


def test_number_of_training_images(root: Path) -> None:
    assert load_mnist(root, train_images=7).train_labels.tolist() == list(range(7))
    with pytest.raises(DataError, match=r"1 … 12 but got 13"):
        load_mnist(root, train_images=13)


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        load_mnist(root)


@pytest.mark.parametrize("content", [b"", b"\0\0\x0d\1\0\0\0\0", b"\0\0\x08\1\0\0\0\2\0", b"\0\0\x08\3\0\0"])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="Expected"):
        read_idx(tmp_path / "file")


def test_the_real_files() -> None:
    if not (SHARED / "MNIST").is_dir():
        pytest.skip("no MNIST in ../shared/data")
    data = load_mnist(SHARED)
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels.bincount().min() > 5400
    assert data.train_images.mean().abs() < 1e-4
