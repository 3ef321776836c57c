"""One network of a zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Entry:
    """A network by name: how to build it with random weights, and inputs it takes."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
