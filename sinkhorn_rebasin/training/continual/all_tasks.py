"""The datamodules of all tasks as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.pytorch.utilities.combined_loader import CombinedLoader


class AllTasks(lightning.LightningDataModule):
    """Put several datamodules together.

    Their training batches come side by side, their test batches one after another.
    """

    def __init__(self, datamodules: Sequence[lightning.LightningDataModule]) -> None:
        super().__init__()
        self.datamodules = list(datamodules)

    def prepare_data(self) -> None:
        """Prepare each."""
        for datamodule in self.datamodules:
            datamodule.prepare_data()

    def setup(self, stage: str) -> None:
        """Set up each."""
        for datamodule in self.datamodules:
            datamodule.setup(stage)

    def teardown(self, stage: str) -> None:
        """Take every datamodule down."""
        for datamodule in self.datamodules:
            datamodule.teardown(stage)

    def train_dataloader(self) -> CombinedLoader:
        """Return lists of one batch from each.

        Shorter ones start over.
        """
        return CombinedLoader([d.train_dataloader() for d in self.datamodules], "max_size_cycle")

    def test_dataloader(self) -> list[Any]:
        """Return one dataloader per task."""
        return [datamodule.test_dataloader() for datamodule in self.datamodules]
