"""One task of a sequence as a datamodule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.data.data_module import BatchIndexed, as_it_is
from experiments.data.image_data import ImageData

Part = tuple[Tensor, Tensor]


class TaskDataModule(lightning.LightningDataModule):
    """Training and test batches of one task, whose tensors are made when they are first needed.

    Batches are shuffled by torch's global random state, which checkpoints hold. Training tensors are let go of after
    the fit, test tensors stay.

    Args:
        train, test: make (images, labels).
        batch_size: of training.
        test_batch_size: of testing.
    """

    def __init__(
        self,
        train: Callable[[], Part],
        test: Callable[[], Part],
        batch_size: int = 128,
        test_batch_size: int = 2000,
    ) -> None:
        super().__init__()
        self._make = {"fit": train, "test": test}
        self._made: dict[str, Part] = {}
        self.batch_size, self.test_batch_size = batch_size, test_batch_size

    def setup(self, stage: str) -> None:
        """Make the tensors of this stage."""
        if stage in self._make and stage not in self._made:
            self._made[stage] = self._make[stage]()

    def teardown(self, stage: str) -> None:
        """Let go of the training tensors."""
        self._made.pop("fit", None)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; the last, smaller one is left out unless it is the only one."""
        self.setup("fit")
        drop = len(self._made["fit"][1]) > self.batch_size
        return self._loader("fit", batch_size=self.batch_size, shuffle=True, drop_last=drop)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches in order."""
        self.setup("test")
        return self._loader("test", batch_size=self.test_batch_size)

    def _loader(self, stage: str, **options: Any) -> DataLoader[Any]:
        return DataLoader(BatchIndexed(*self._made[stage]), collate_fn=as_it_is, **options)


def split_by_class(
    data: ImageData, classes: Sequence[Sequence[int]], batch_size: int
) -> list[TaskDataModule]:
    """One task for each set of classes; labels stay as they are.

    Example:
        >>> from experiments.data import load_digits
        >>> tasks = split_by_class(load_digits(), [[0, 1], [2, 3]], batch_size=32)
        >>> images, labels = next(iter(tasks[1].train_dataloader()))
        >>> sorted(set(labels.tolist()))
        [2, 3]
    """
    return [
        TaskDataModule(
            lambda own=own: _of_classes(data.train_images, data.train_labels, own),  # type: ignore[misc]
            lambda own=own: _of_classes(data.test_images, data.test_labels, own),  # type: ignore[misc]
            batch_size,
        )
        for own in classes
    ]


def _of_classes(images: Tensor, labels: Tensor, classes: Sequence[int]) -> Part:
    chosen = (labels[:, None] == labels.new_tensor(list(classes))).any(dim=1)
    return images[chosen], labels[chosen]
