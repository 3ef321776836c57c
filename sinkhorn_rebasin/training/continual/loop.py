"""The loop over tasks: fit, test, keep, and go on where a stopped run left off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import lightning
import torch
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual.all_tasks import AllTasks
from sinkhorn_rebasin.training.continual.learner import ContinualLearner
from sinkhorn_rebasin.training.continual.run_file import EveryEpoch, read_checkpoint, write_checkpoint

TrainerFactory = Callable[[], lightning.Trainer]


def learn_tasks(
    learner: ContinualLearner,
    datamodules: Sequence[lightning.LightningDataModule],
    trainer: TrainerFactory,
    *,
    checkpoint: str | Path | None = None,
) -> Tensor:
    """Teach a learner one task after another.

    It is tested on all of them before the first and after each.

    Args:
        learner: what learns; tasks it has already learned are skipped.
        datamodules: one per task, in order, each with a train and a test dataloader of (inputs, labels).
        trainer: makes the Trainer of each task; it says how long to train, on what, with which callbacks.
        checkpoint: where to keep the run, written after each epoch and each task. A file that is there already is
            gone on from: a run that was stopped in any task ends as one that was not, where the dataloaders shuffle
            by torch's global random state, or by generators made anew. The file is replaced when the next one is
            complete: a run that is killed, or a full disk, leaves the one before.

    Returns:
        The accuracy matrix, (T, T); row i holds the accuracies after learning task i.

    Raises:
        DataError: not one datamodule for each of the learner's tasks, or a task without a training batch.
        CheckpointError: the checkpoint is of another learner, does not load, or cannot be written.

    Example:
        >>> from torch import nn
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from sinkhorn_rebasin.training.continual import FineTuning
        >>> class Task(lightning.LightningDataModule):
        ...     def train_dataloader(self):
        ...         return DataLoader(TensorDataset(torch.randn(8, 4), torch.randint(3, (8,))), 4)
        ...     test_dataloader = train_dataloader
        >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        >>> make = lambda: lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
        >>> learn_tasks(FineTuning(nn.Linear(4, 3), tasks=2), [Task(), Task()], make).shape == (2, 2)
        True
    """
    if len(datamodules) != learner.tasks:
        raise DataError(
            f"Expected one datamodule for each of the learner's {learner.tasks} tasks but got {len(datamodules)}."
        )
    file = None if checkpoint is None else Path(checkpoint)
    resume = _gone_on_from(learner, file)
    tests = AllTasks(datamodules)
    if learner.task == 0 and resume is None:
        trainer().test(learner, datamodule=tests, verbose=False)
    for task, datamodule in learner.curriculum(datamodules):
        if task < learner.task:
            continue
        run = trainer()
        if file is not None:
            run.callbacks.append(EveryEpoch(file))  # type: ignore[attr-defined]
        run.fit(learner, datamodule=datamodule, ckpt_path=resume)
        if learner.task <= task:
            if run.interrupted:
                break
            raise DataError(
                f"Expected a training dataloader with at least one batch for task {task} but it is empty, or the "
                f"Trainer has nothing left to do: make a new one for each task."
            )
        run.test(learner, datamodule=tests, verbose=False)
        if file is not None:
            write_checkpoint(run, file)
        resume = None
    return learner.accuracy_matrix()


def _gone_on_from(learner: ContinualLearner, file: Path | None) -> Path | None:
    """Load what a checkpoint knows.

    Returns the file when it was written in the middle of a task.
    """
    if file is None:
        return None
    if file.suffix != ".ckpt":
        raise DataError(f"Expected a checkpoint file that ends in .ckpt but got {file.name!r}.")
    if not file.is_file():
        return None
    kept = read_checkpoint(file)
    learner.load_state_dict(kept["state_dict"])
    if bool(learner.begun):
        return file
    torch.set_rng_state(kept["random_state"])
    return None
