"""Data for the command: a function that returns batches, or a folder of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.from_function import called, is_function
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.errors import DataError, RebasinError
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss


class FolderOfBatches(Sequence[Any]):
    """Read one batch after the other from the files of a folder, in the order of their names.

    A file with ``inputs`` and, where there are any, ``labels`` is such a pair; any other is a dict of arguments.
    """

    def __init__(self, folder: Path) -> None:
        self.files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".npz"))
        if not self.files:
            raise DataError(
                f"Expected .safetensors or .npz files, one a batch, in {folder} but there are none."
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: Any) -> Any:
        """Read one batch, or hold a part of them that is read later."""
        if isinstance(place, slice):
            part = copy(self)
            part.files = self.files[place]
            return part
        batch = _arrays(self.files[place])
        return (batch["inputs"], batch.get("labels")) if "inputs" in batch else batch


def read_data(text: str, model: LoadedModel, labelled: bool = False) -> Iterable[Any]:
    """Return the batches that a text names, which can be read again and again.

    The first is tried on the model.

    Raises:
        UsageError: the text names no data.
        DataError: there is no batch, or the model does not run on it.
    """
    batches = _batches(text)
    batches = list(batches) if isinstance(batches, Iterator) else batches
    first = next(iter(batches), None)
    if first is None:
        raise DataError(f"Expected at least one batch from {text} but it yields nothing.")
    inputs, _ = read_batch(first, network=model.module, labelled=labelled)
    with _told(text, model, "the first"):
        _run(model, inputs)
    return batches


def check_data(text: str, model: LoadedModel) -> None:
    """Read all batches that a text names, and run a model and its loss on each.

    Raises:
        DataError: one cannot be read, or the model or its loss do not take it; its number is told.
    """
    batches, number = iter(_batches(text)), 0
    while True:
        number += 1
        with _told(text, model, f"batch {number}"):
            batch = next(batches, None)
            if batch is None:
                return
            inputs, labels = read_batch(batch, network=model.module, labelled=False)
            outputs = _run(model, inputs)
            if labels is not None:
                scored(task_loss, outputs, labels)


def first_inputs(batches: Iterable[Any], model: LoadedModel) -> Any:
    """Return the inputs of the first batch."""
    return read_batch(next(iter(batches)), network=model.module, labelled=False)[0]


def _batches(text: str) -> Iterable[Any]:
    if is_function(text):
        batches = called(text)
    elif Path(text).is_dir():
        batches = FolderOfBatches(Path(text))
    else:
        raise UsageError(
            f"Expected data but got {text!r}, which is neither a folder nor package.module:function."
        )
    if not isinstance(batches, Iterable):
        raise DataError(f"Expected batches from {text} but got {type(batches).__name__}.")
    return batches


def _run(model: LoadedModel, inputs: Any) -> Any:
    network = evaluation_copy(model.module)
    with torch.no_grad(), untouched_randomness():
        return run_at(network, {}, inputs)


@contextmanager
def _told(text: str, model: LoadedModel, which: str) -> Iterator[None]:
    """Say of which batch an error is."""
    try:
        yield
    except RebasinError:
        raise
    except Exception as error:
        raise DataError(
            f"Expected batches from {text} that {model.text} runs on but {which} raised {type(error).__name__}: "
            f"{error}"
        ) from error


def _arrays(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (SafetensorError, OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"Expected arrays in {file} but it does not load: {error}") from error
