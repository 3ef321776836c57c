"""A folder of PEFT: the configuration of an adapter as JSON, and its tensors; no code is run, nor PEFT needed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT writes before the names of the base's tensors."""


def read_adapter(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], State]:
    """Read an adapter's configuration and tensors.

    Returns:
        The configuration, and tensors by name without PEFT's prefix.

    Raises:
        CheckpointError: a file is missing, cut short or something else.

    Example:
        >>> import tempfile, torch
        >>> write_adapter(tempfile.gettempdir(), {"peft_type": "LORA"}, {"0.lora_A.weight": torch.ones(1, 2)})
        >>> list(read_adapter(tempfile.gettempdir())[1])
        ['0.lora_A.weight']
    """
    place = Path(folder)
    config, weights = place / CONFIG, place / WEIGHTS
    if not config.is_file():
        raise CheckpointError(f"Expected a folder of PEFT in {place} but it has no {CONFIG}.")
    if not weights.is_file():
        pickled = (place / "adapter_model.bin").is_file()
        hint = " adapter_model.bin is a pickle, which is not read: convert it to safetensors."
        raise CheckpointError(f"Expected {weights} but there is no such file.{hint if pickled else ''}")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"Expected JSON in {config} but it is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"Expected an object of JSON in {config} but got {type(settings).__name__}.")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"Expected an adapter's tensors in {weights} but it does not load ({str(error).splitlines()[0]}): it was "
            f"cut short or is no file of safetensors."
        ) from error
    return settings, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def write_adapter(folder: str | os.PathLike[str], config: Mapping[str, Any], tensors: StateLike) -> None:
    """Write an adapter's configuration and tensors into a folder that is there.

    Raises:
        OSError: the files cannot be written.
    """
    named = {
        f"{PREFIX}{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }
    save_file(named, Path(folder) / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(dict(config), indent=2, sort_keys=True)
    (Path(folder) / CONFIG).write_text(text, encoding="utf-8")
