from __future__ import annotations

import io
import os
import pickle
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data import load_cifar10
from sinkhorn_rebasin.errors import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def _batches(root: Path, extra: object = None) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    data = np.random.default_rng(0).integers(256, size=(6, 4, 3072), dtype=np.uint8)
    for name, values in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], data, strict=True):
        content = {b"data": values, b"labels": [0, 1, 2, 9], b"extra": extra}
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))
    return data


def _packed(root: Path, count: int = 4) -> np.ndarray:
    folder = root / "cifar-10-jpeg"
    folder.mkdir()
    decoded, files = [], []
    for grey in np.linspace(20, 230, count, dtype=np.uint8):
        file = io.BytesIO()
        picture = np.full((32, 32, 3), [grey, 255 - grey, 7], np.uint8)
        picture[8:, :4] = 0
        Image.fromarray(picture).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
        decoded.append(np.asarray(Image.open(file)))
    shared = next(i for i in range(len(files[0])) if len({file[i] for file in files}) > 1)
    header = files[0][:shared]
    rest = [file[len(header) :] for file in files]
    arrays = {
        "header": np.frombuffer(header, np.uint8),
        "blob": np.frombuffer(b"".join(rest), np.uint8),
        "offsets": np.cumsum([0, *(len(part) for part in rest)]),
        "labels": np.arange(count, dtype=np.uint8),
    }
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", **arrays)
    return np.stack(decoded)


def _assert_standardised(images: torch.Tensor, raw: np.ndarray) -> None:
    values = raw.astype(np.float64)
    expected = (values - values.mean((0, 2, 3), keepdims=True)) / values.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(images.double().numpy(), expected, atol=1e-4)


def test_official_batches(tmp_path: Path) -> None:
    raw = _batches(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_cifar10(tmp_path)
    _assert_standardised(data.train_images, raw[:5].reshape(20, 3, 32, 32))
    assert data.test_labels.tolist() == [0, 1, 2, 9]
    assert len(load_cifar10(tmp_path, train_images=5).train_labels) == 5


def test_batches_as_python_2_wrote_them(tmp_path: Path) -> None:
    if not (SHARED / "unpack.py").is_file():
        pytest.skip("no unpack.py in ../shared/data to write them with")
    as_python_2 = runpy.run_path(str(SHARED / "unpack.py"))["py2_pickle"]
    raw = _batches(tmp_path)
    for name, values in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], raw, strict=True):
        content = as_python_2({b"data": values, b"labels": [0, 1, 2, 9], b"batch_label": b"one"})
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    data = load_cifar10(tmp_path)
    _assert_standardised(data.train_images, raw[:5].reshape(20, 3, 32, 32))
    assert data.train_labels.tolist() == [0, 1, 2, 9] * 5


def test_packed_jpegs(tmp_path: Path) -> None:
    raw = _packed(tmp_path)
    data = load_cifar10(tmp_path, train_images=3)
    _assert_standardised(data.train_images, raw[:3].transpose(0, 3, 1, 2))
    assert data.test_labels.tolist() == [0, 1, 2, 3]


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    _batches(tmp_path, extra=os.getcwd)
    with pytest.raises(DataError, match=r"but got posix\.getcwd"):
        load_cifar10(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-py or cifar-10-jpeg"):
        load_cifar10(tmp_path)
    _batches(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3"):
        load_cifar10(tmp_path)


def test_the_packed_set_beside_the_checkout() -> None:
    if not (SHARED / "cifar-10-jpeg").is_dir():
        pytest.skip("no CIFAR-10 in ../shared/data")
    data = load_cifar10(SHARED, train_images=500)
    assert data.train_images.shape == (500, 3, 32, 32)
    assert data.test_images.shape == (10000, 3, 32, 32)
    assert data.test_labels.bincount().tolist() == [1000] * 10
