"""Weights from a file: safetensors, or what torch saved, of which nothing is ever run."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import CheckpointError

_NESTED = ("state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")


def read_weights(path: str | os.PathLike[str]) -> State:
    """Read a state from a file, on the CPU.

    A state inside of a dict with ``state_dict`` or ``model`` is taken out of it.

    Raises:
        CheckpointError: the file is missing, cut short, holds no weights, or holds objects that loading would run.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/a.pt"
        >>> torch.save({"state_dict": {"w": torch.ones(2)}}, file)
        >>> read_weights(file)
        {'w': tensor([1., 1.])}
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"Expected weights in {file} but there is no such file.")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"Expected weights in {file} but it does not load ({str(error).splitlines()[0]}): it was cut short "
                f"or is no file of safetensors."
            ) from error
    return _state_in(_unpickled(file), file)


def unwrapped(state: State, known: Mapping[str, Any]) -> State:
    """Take the prefix of a wrapper off all names, where the known names then fit.

    >>> list(unwrapped({"module.w": torch.ones(1)}, {"w": None}))
    ['w']
    """
    while state and not set(state) & set(known):
        prefix = next((start for start in _PREFIXES if all(name.startswith(start) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _unpickled(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that torch did not write
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Expected weights alone in {file} but loading it would run code, which is refused: save "
            f"model.state_dict() and nothing else, or write it as .safetensors."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CheckpointError(
            f"Expected weights in {file} but it does not load ({reason}): it was cut short or is no file of torch."
        ) from error


def _state_in(content: Any, file: Path) -> State:
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"Expected a state dict in {file} but got {type(content).__name__}: save model.state_dict()."
        )
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"Expected a state dict in {file} but there is no tensor in it.")
    return state
