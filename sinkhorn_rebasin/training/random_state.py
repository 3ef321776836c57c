"""Checkpoints that hold torch's random state, so that a resumed run goes on as one that was never stopped."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class KeepsRandomState(lightning.LightningModule):
    """A LightningModule whose checkpoints also hold torch's global random state.

    A run resumed at an epoch's end goes on with the same shuffling and the same random positions as one that was
    never stopped; generators of one's own, of a loss or a sampler, are not in it.
    """

    _loaded_random_state: Tensor | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep torch's random state beside the weights."""
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random state of the checkpoint when a Trainer resumes from it."""
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        if fitting and "random_state" in checkpoint:
            self._loaded_random_state = checkpoint["random_state"].cpu()
            torch.set_rng_state(self._loaded_random_state)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Training goes on within the epoch: its loader drew from the loaded state as it had before."""
        self._loaded_random_state = None

    def on_train_epoch_end(self) -> None:
        """Take the loaded state again if the epoch was over: opening its loader once more drew from it in vain."""
        if self._loaded_random_state is not None:
            torch.set_rng_state(self._loaded_random_state)
            self._loaded_random_state = None
