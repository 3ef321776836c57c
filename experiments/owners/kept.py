"""Trained networks kept in files, so that a run that is cut off goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn


def kept(file: Path | None, fresh: Callable[[], nn.Module], train: Callable[[], nn.Module]) -> nn.Module:
    """Return the network of a file, or train it and write the file; train it anyway without a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, other = (
        ...         kept(Path(folder) / "a.safetensors", lambda: nn.Linear(2, 1), lambda: nn.Linear(2, 1))
        ...         for _ in range(2)
        ...     )
        >>> bool((one.weight == other.weight).all())
        True
    """
    if file is not None and file.is_file():
        network = fresh()
        network.load_state_dict(load_file(file))
        return network.eval()
    network = train()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        save_file(network.state_dict(), part)
        part.replace(file)
    return network
