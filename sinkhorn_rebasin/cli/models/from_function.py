"""Functions of the user's own, named as ``package.module:function``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel, load_weights


class FactoryModel(LoadedModel):
    """A network that a function of the user's own makes, with weights from a file."""

    @property
    def how_to_load(self) -> str:
        """Return a line of Python that loads what was written."""
        module, function = self.text.split(":")[:2]
        return (
            f"from {module} import {function}; net = {function}(); "
            "safetensors.torch.load_model(net, 'model.safetensors')"
        )


def model_of_factory(text: str) -> FactoryModel:
    """Make the network that ``package.module:factory[:FILE]`` names.

    Raises:
        UsageError: there is no such function, or it makes no network.
        CheckpointError, NotMergeableError: the file does not load, or does not fit.
    """
    dotted, name, *file = text.split(":", 2)
    made = called(f"{dotted}:{name}")
    if not isinstance(made, nn.Module):
        raise UsageError(f"Expected {dotted}:{name} to return a network but got {type(made).__name__}.")
    if file:
        load_weights(made, file[0], text)
    return FactoryModel(text, made)


def called(text: str) -> Any:
    """Call the function that ``package.module:function`` names, without arguments.

    Raises:
        UsageError: there is no such function, or it fails.
    """
    function = _function(text)
    try:
        return function()
    except Exception as error:
        raise UsageError(
            f"Expected {text} to be a function without arguments but it raised {type(error).__name__}: {error}"
        ) from error


def is_function(text: str) -> bool:
    """Tell whether a text has the form ``package.module:function``.

    >>> is_function("package.module:function"), is_function("./a:b"), is_function("folder")
    (True, False, False)
    """
    dotted, colon, name = text.partition(":")
    return bool(colon) and all(map(str.isidentifier, dotted.split("."))) and name.isidentifier()


def _function(text: str) -> Callable[[], Any]:
    dotted, _, name = text.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(dotted)
    except Exception as error:
        raise UsageError(
            f"Expected a Python module {dotted!r} for {text} but importing it raised {type(error).__name__}: {error}"
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"Expected a function {name!r} in the module {dotted!r} but there is none.")
    return function
