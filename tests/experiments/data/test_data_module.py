from __future__ import annotations

import pytest
import torch

from experiments.data import InMemoryDataModule, load_digits
from sinkhorn_rebasin.errors import DataError

DATA = load_digits(train_images=50)


def _images(module: InMemoryDataModule, part: str) -> torch.Tensor:
    return torch.cat([images for images, _ in getattr(module, f"{part}_dataloader")()])


def _order(module: InMemoryDataModule) -> torch.Tensor:
    own = DATA.train_images[module.train_indices].flatten(1)
    return torch.cdist(_images(module, "train").flatten(1), own).argmin(1)


def test_validation_is_held_out_and_every_image_comes_once() -> None:
    module = InMemoryDataModule(DATA, batch_size=16, seed=3, validation_fraction=0.2)
    train, validation = _images(module, "train"), _images(module, "val")
    assert (len(train), len(validation)) == (40, 10)
    together = torch.cat([train, validation]).flatten(1)
    assert torch.equal(torch.unique(together, dim=0), torch.unique(DATA.train_images.flatten(1), dim=0))


def test_images_keep_their_labels() -> None:
    labels = {image.numpy().tobytes(): label for image, label in DATA.train_set()}
    for images, batch_labels in InMemoryDataModule(DATA, batch_size=7).train_dataloader():
        assert [labels[image.numpy().tobytes()] for image in images] == batch_labels.tolist()


def test_seed_decides_the_split_and_the_order() -> None:
    first, same, other = (InMemoryDataModule(DATA, batch_size=16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(_images(first, "train"), _images(same, "train"))
    assert not torch.equal(_images(first, "train"), _images(other, "train"))
    # the order in which each visits its own training images, not the images themselves
    assert not torch.equal(_order(first), _order(other))
    loader = same.train_dataloader()
    epochs = [torch.cat([labels for _, labels in loader]) for _ in range(2)]
    assert not torch.equal(*epochs)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    _images(InMemoryDataModule(DATA, batch_size=16), "train")
    assert torch.equal(before, torch.get_rng_state())


def test_test_part_is_complete_and_in_order() -> None:
    assert torch.equal(_images(InMemoryDataModule(DATA, batch_size=100), "test"), DATA.test_images)


def test_no_training_image_left_is_an_error() -> None:
    with pytest.raises(DataError, match="validation_fraction"):
        InMemoryDataModule(DATA, validation_fraction=1.0)
