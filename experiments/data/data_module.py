"""Batches from memory for Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.image_data import ImageData
from sinkhorn_rebasin.errors import DataError


class InMemoryDataModule(lightning.LightningDataModule):
    """Shuffled training batches, and a validation part held out from the training images.

    The held-out images and the order of the batches depend on `seed` alone.

    Raises:
        DataError: the validation fraction leaves no image for training.
    """

    def __init__(
        self, data: ImageData, batch_size: int = 128, seed: int = 0, validation_fraction: float = 0.1
    ) -> None:
        super().__init__()
        count = len(data.train_labels)
        held_out = round(count * validation_fraction)
        if not 0 <= held_out < count:
            raise DataError(f"Expected validation_fraction in [0, 1) but got {validation_fraction}.")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        self.validation_indices, self.train_indices = order[:held_out], order[held_out:]

    def train_dataloader(self) -> DataLoader[Any]:
        indices = self.train_indices
        return self._loader(self.data.train_images[indices], self.data.train_labels[indices], shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        indices = self.validation_indices
        return self._loader(self.data.train_images[indices], self.data.train_labels[indices])

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.data.test_images, self.data.test_labels)

    def _loader(self, images: Tensor, labels: Tensor, *, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            BatchIndexed(images, labels),
            batch_size=self.batch_size,
            shuffle=shuffle,
            collate_fn=as_it_is,
            generator=torch.Generator().manual_seed(self.seed),
        )


class BatchIndexed(TensorDataset):
    """Fetches a batch by one indexing of each tensor, where the default stacks image after image."""

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        return [tensor[indices] for tensor in self.tensors]


def as_it_is(batch: list[Tensor]) -> list[Tensor]:
    """The batch: it is collated already."""
    return batch
