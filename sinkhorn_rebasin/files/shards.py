"""A checkpoint of safetensors read tensor by tensor, and written the same way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Shards(Mapping[str, Tensor]):
    """Hold a checkpoint's names in memory, and read a tensor when it is asked for.

    Args:
        folder: with ``model.safetensors``, or with shards and their index.

    Raises:
        CheckpointError: a file is missing or cut short, or a shard lacks a tensor that the index names.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_file({"w": torch.ones(2)}, folder / SINGLE)
        >>> shards = Shards(folder)
        >>> list(shards), shards["w"].tolist()
        (['w'], [1.0, 1.0])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._opened: dict[str, Any] = {}
        self._file_of = {name: file for file in shard_files(self.folder) for name in self._names(file)}
        for name, file in _indexed(self.folder).items():
            if self._file_of.get(name) != file:
                raise CheckpointError(
                    f"Expected {name!r} in {self.folder / file}, where the index has it, but it is not there."
                )

    @property
    def files(self) -> list[str]:
        """List the names of the files."""
        return list(dict.fromkeys(self._file_of.values()))

    def outlines(self) -> dict[str, Tensor]:
        """Return tensors of the checkpoint's shapes, without values."""
        slices = {name: self._opened[file].get_slice(name) for name, file in self._file_of.items()}
        return {name: torch.empty(each.get_shape(), device="meta") for name, each in slices.items()}

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._opened[self._file_of[name]].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def _names(self, file: str) -> list[str]:
        path = self.folder / file
        try:
            self._opened[file] = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"Expected whole weights in {path} but it was cut short or is no file of safetensors: {error}"
            ) from error
        return list(self._opened[file].keys())


def shard_files(folder: Path) -> list[str]:
    """List the files of a checkpoint.

    Raises:
        CheckpointError: one is missing, or the index is damaged.
    """
    indexed = _indexed(folder)
    files = sorted(set(indexed.values())) if indexed else [SINGLE]
    for file in files:
        if not (folder / file).is_file():
            hint = ": the index names it, so a shard is missing; download it again." if indexed else "."
            raise CheckpointError(f"Expected weights in {folder / file} but there is no such file{hint}")
    return files


def rewrite(shards: Shards, folder: Path, tensor_for: Callable[[str, Tensor], Tensor]) -> None:
    """Write a checkpoint with other values to a folder: the same files, names, shapes and types.

    One tensor at a time is in memory. Headers and the index are taken over byte by byte.

    Args:
        shards: the checkpoint that is read.
        folder: an empty one.
        tensor_for: from a name and the tensor that was read to the one that is written.

    Raises:
        ArchitectureError: a tensor of another shape or type.
        OSError: the files cannot be written.
    """
    for file in shards.files:
        header, content = _header(shards.folder / file)
        names = sorted(
            (name for name in content if name != "__metadata__"),
            key=lambda name: content[name]["data_offsets"],
        )
        with (folder / file).open("wb") as written:
            written.write(header)
            for name in names:
                read = shards[name]
                tensor = tensor_for(name, read)
                if tensor.shape != read.shape or tensor.dtype != read.dtype:
                    raise ArchitectureError(
                        f"Expected {name!r} to stay {read.dtype} {tuple(read.shape)} but got {tensor.dtype} "
                        f"{tuple(tensor.shape)}."
                    )
                written.write(_bytes(tensor))
    if (shards.folder / INDEX).is_file():
        shutil.copyfile(shards.folder / INDEX, folder / INDEX)


def _indexed(folder: Path) -> dict[str, str]:
    """Read which file the index has each tensor in; empty where there is no index."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        return {str(name): str(file) for name, file in json.loads(index.read_text())["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"Expected an index of shards in {index} but it is damaged.") from error


def _header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read a file's header as it is, and what it says."""
    with path.open("rb") as opened:
        size = opened.read(8)
        text = opened.read(int.from_bytes(size, "little"))
    return size + text, json.loads(text)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
