"""A module fitted to data for one epoch."""

from __future__ import annotations

import warnings
from typing import Any

import lightning
import torch
from torch import Tensor


def fitted(module: lightning.LightningModule, data: Any, *callbacks: lightning.Callback) -> dict[str, Tensor]:
    """The state of a module after one quiet epoch, the same in every call."""
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, None if callbacks else loader)
    return module.state_dict()
