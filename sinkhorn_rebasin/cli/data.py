"""Data for the command: a function that returns batches, or a folder of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


class FolderOfBatches:
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

    def __iter__(self) -> Iterator[Any]:
        for file in self.files:
            batch = _arrays(file)
            yield (batch["inputs"], batch.get("labels")) if "inputs" in batch else batch


def read_data(text: str, model: LoadedModel, labelled: bool = False) -> Iterable[Any]:
    """Return the batches that a text names, which can be read again and again.

    The first is tried on the model.

    Raises:
        UsageError: the text names no data.
        DataError: there is no batch, or the model does not run on it.
    """
    if is_function(text):
        batches = called(text)
    elif Path(text).is_dir():
        batches = FolderOfBatches(Path(text))
    else:
        raise UsageError(
            f"Expected data but got {text!r}, which is neither a folder nor package.module:function."
        )
    if isinstance(batches, Iterator):
        batches = list(batches)
    if not isinstance(batches, Iterable):
        raise DataError(f"Expected batches from {text} but got {type(batches).__name__}.")
    _try_first(batches, text, model, labelled)
    return batches


def first_inputs(batches: Iterable[Any], model: LoadedModel) -> Any:
    """Return the inputs of the first batch."""
    return read_batch(next(iter(batches)), network=model.module, labelled=False)[0]


def _try_first(batches: Iterable[Any], text: str, model: LoadedModel, labelled: bool) -> None:
    first = next(iter(batches), None)
    if first is None:
        raise DataError(f"Expected at least one batch from {text} but it yields nothing.")
    inputs, _ = read_batch(first, network=model.module, labelled=labelled)
    network = evaluation_copy(model.module)
    try:
        with torch.no_grad(), untouched_randomness():
            run_at(network, {}, inputs)
    except RebasinError:
        raise
    except Exception as error:
        raise DataError(
            f"Expected batches from {text} that {model.text} runs on but the first raised {type(error).__name__}: "
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
