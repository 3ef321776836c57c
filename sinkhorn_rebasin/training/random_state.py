"""Checkpoints that hold torch's random state, so that a resumed run goes on as one that was never stopped."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn


class KeepsRandomState(lightning.LightningModule):
    """A LightningModule whose checkpoints also hold torch's global random state.

    A run resumed at an epoch's end goes on with the same shuffling and the same random positions as one that was
    never stopped; generators of one's own, of a loss or a sampler, are not in it.
    """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep torch's random state beside the weights."""
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random state of the checkpoint when a Trainer resumes from it."""
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        if fitting and "random_state" in checkpoint:
            torch.set_rng_state(checkpoint["random_state"].cpu())
