"""The one checkpoint of a run over tasks: written so that there is always a whole one, and read with clear errors."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.files.atomic import put_on_disk


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints that are whole or not there.

    A checkpoint is written beside its place and moved there when it is complete. Lightning's own way writes to the
    temporary folder and copies from there, over the only whole checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint and let it take its place.

        ``NAME.part`` is written, and is on the disk before it takes the place of ``NAME``.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        try:
            with part.open("wb") as target:
                torch.save(checkpoint, target)
                target.flush()
                os.fsync(target.fileno())
            os.replace(part, file)
        except (OSError, RuntimeError) as error:
            # torch reports what a disk has no room for as a RuntimeError of its own.
            with suppress(OSError):
                part.unlink(missing_ok=True)
            before = "the one written before is whole and stays" if file.is_file() else "there is none before"
            raise CheckpointError(
                f"Expected to write the checkpoint {file} but got {type(error).__name__}: {error}; {before}. Make "
                f"room, or pass another checkpoint=, and start again."
            ) from error
        put_on_disk(file.parent)


class EveryEpoch(Checkpoint):
    """Write one file at the end of every epoch."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write after all that other callbacks do."""
        write_checkpoint(trainer, self.file)


def write_checkpoint(trainer: lightning.Trainer, file: Path) -> None:
    """Write a Trainer's checkpoint atomically.

    A Trainer that has a way to write of its own keeps it.
    """
    own = trainer.strategy.checkpoint_io
    if type(own) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    try:
        trainer.save_checkpoint(file)
    finally:
        trainer.strategy.checkpoint_io = own


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load a checkpoint that :func:`learn_tasks` wrote.

    Raises:
        CheckpointError: the file does not load, or is no checkpoint.
    """
    try:
        kept = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        # Not in torch's words, which advise to run what is in it.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CheckpointError(
            f"Expected a checkpoint of learn_tasks in {file} but it does not load: {reason}. Put a copy in its "
            f"place, or delete it to begin anew."
        ) from error
    if not isinstance(kept, dict) or not {"state_dict", "random_state"} <= kept.keys():
        raise CheckpointError(
            f"Expected a checkpoint of learn_tasks in {file} but it holds no weights with a random state. Delete it "
            f"to begin anew."
        )
    return kept
