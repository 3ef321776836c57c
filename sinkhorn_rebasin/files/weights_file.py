"""Weights from a file: safetensors, or what torch saved, of which nothing is ever run."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import CheckpointError, listed

_NESTED = ("state_dict", "model_state_dict", "model", "module")
_COMPILED = "_orig_mod."


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
        found = "it is a folder: name the file in it" if file.is_dir() else "there is no such file"
        raise CheckpointError(f"Expected weights in {file} but {found}.")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"Expected weights in {file} but it does not load ({str(error).splitlines()[0]}): it was cut short "
                f"or is no file of safetensors."
            ) from error
    return state_in(_unpickled(file), str(file))


def unwrapped(state: StateLike, known: Collection[str]) -> State:
    """Take a network out of what wraps it, where its names are known.

    Wrappers put ``module.``, ``model.`` or other prefixes in front of every name, and ``torch.compile`` puts
    ``_orig_mod.`` in between. What a wrapper holds besides the network is left out.

    Raises:
        CheckpointError: the wrapper holds several such networks; their prefixes are named.

    >>> list(unwrapped({"module.w": torch.ones(1), "criterion.scale": torch.ones(1)}, ["w"]))
    ['w']
    """
    names = set(known)
    if not names or not names.isdisjoint(state):
        return _uncompiled(state, names)
    plain = _uncompiled(state, names)
    if not names.isdisjoint(plain):
        return plain
    sizes: dict[str, int] = {}
    for name in plain:
        parts = name.split(".")
        for place in range(1, len(parts)):
            if ".".join(parts[place:]) in names:
                prefix = ".".join(parts[:place]) + "."
                sizes[prefix] = sizes.get(prefix, 0) + 1
    if not sizes:
        return plain
    most = max(sizes.values())
    largest = [prefix for prefix, size in sizes.items() if size == most]
    if len(largest) > 1:
        raise CheckpointError(
            f"Expected one network in the state but it holds several, under {listed(map(repr, largest))}: pass the "
            f"part of one, without its prefix."
        )
    return {name.removeprefix(largest[0]): plain[name] for name in plain if name.startswith(largest[0])}


def state_in(content: Any, where: str) -> State:
    """Find the state in what was given or loaded.

    It may lie inside of a dict, under ``state_dict`` or ``model``.

    Raises:
        CheckpointError: there is none.

    >>> state_in({"epoch": 3, "state_dict": {"w": torch.ones(1)}}, "it")
    {'w': tensor([1.])}
    """
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"Expected a state dict in {where} but got {type(content).__name__}: save model.state_dict()."
        )
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"Expected a state dict in {where} but there is no tensor in it.")
    return state


def _uncompiled(state: StateLike, known: set[str]) -> State:
    """Take out what torch.compile puts into names, unless the known names hold it."""
    if any(_COMPILED in name for name in known):
        return dict(state)
    return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}


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
