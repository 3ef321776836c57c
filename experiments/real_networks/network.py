"""A network with the weights that its package brings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Published:
    """A network by name.

    Attributes:
        name: the package's name and which of its networks.
        distribution: what pip calls the package.
        make: builds the network and loads its weights.
        inputs: draws as many inputs as asked for, as the network takes them.
    """

    name: str
    distribution: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Any]


def folder_of(package: str) -> Path:
    """Return where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"Expected the package {package} but it is not installed.")
    return Path(found.submodule_search_locations[0])
