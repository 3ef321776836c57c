"""One network of a zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sinkhorn_rebasin.permutations import PermutationSpec


@dataclass(frozen=True)
class Entry:
    """A network by name: how to build it with random weights, and inputs it takes.

    ``human`` tells whether a spec is what a human would have written, where a human has. ``fresh`` draws inputs
    that the example does not resemble; a network that has them is also checked on them, apart from
    ``verify_symmetry``.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    human: Callable[[PermutationSpec], bool] | None = None
    fresh: Callable[[], Any] | None = None
