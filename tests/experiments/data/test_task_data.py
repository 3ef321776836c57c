from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.data.cifar100 import load_cifar100
from experiments.data.rotation import rotated
from experiments.data.task_data import TaskDataModule
from sinkhorn_rebasin.errors import DataError


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarter: int, mode: str) -> None:
    images = torch.randint(256, (5, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float() - 7
    turned = rotated(images, 90.0 * quarter, mode)  # type: ignore[arg-type]
    torch.testing.assert_close(turned, torch.rot90(images, quarter, (2, 3)), atol=5e-2, rtol=0)


def test_a_pixel_goes_where_the_angle_says() -> None:
    image = torch.full((1, 1, 29, 29), -0.4)
    image[0, 0, 14, 24] = 2.0  # Ten to the right of the centre.
    for degrees in (30.0, 60.0, 123.0):
        row, column = divmod(int(rotated(image, degrees, "bilinear").argmax()), 29)
        angle = math.radians(degrees)
        assert abs(column - (14 + 10 * math.cos(angle))) < 1
        assert abs(row - (14 - 10 * math.sin(angle))) < 1
        assert rotated(image, degrees).min() == -0.4


def test_tensors_are_made_when_needed_and_let_go_of() -> None:
    made: list[str] = []

    def part(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(name)
        return torch.arange(20.0)[:, None], torch.zeros(20, dtype=torch.long)

    data = TaskDataModule(lambda: part("train"), lambda: part("test"), batch_size=8)
    assert made == []
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [8, 8]
    assert made == ["train"]
    data.teardown("fit")
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 20
    data.setup("test")
    data.train_dataloader()
    assert made == ["train", "test", "train"]


def test_cifar100_in_its_official_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-100-python"):
        load_cifar100(tmp_path)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    for split, count in (("train", 6), ("test", 4)):
        content = {
            b"data": images[:count],
            b"fine_labels": list(range(94, 94 + count)),
            b"coarse_labels": [0] * count,
            b"filenames": [b"a.png"] * count,
        }
        (folder / split).write_bytes(pickle.dumps(content))
    data = load_cifar100(tmp_path, train_images=5)
    assert data.train_images.shape == (5, 3, 32, 32)
    assert data.test_labels.tolist() == [94, 95, 96, 97]
    pixels = torch.from_numpy(images[:5]).reshape(5, 3, 32, 32).float()
    expected = (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std(
        (0, 2, 3), keepdim=True, correction=0
    )
    torch.testing.assert_close(data.train_images, expected)
