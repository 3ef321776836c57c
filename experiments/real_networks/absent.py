"""Modules that a package imports and that its networks never call."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """A module in which every public name is None."""

    __path__: list[str] = []  # noqa: RUF012 (what makes it a package to the import system)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def stand_in_for(names: Iterable[str]) -> None:
    """Let modules be imported that are not there.

    Some readers of sound files and of a graphics card's memory exist as source for a compiler alone. The packages
    import them at the top; the networks and their weights need nothing of them.

    >>> stand_in_for(["reader_of_a_card"])
    >>> from reader_of_a_card import memory
    >>> memory is None
    True
    """
    for name in names:
        sys.modules.setdefault(name, _Absent(name))
