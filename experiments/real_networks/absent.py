"""Modules that a package imports and that its networks never call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """A module in which every public name is None."""

    __path__: list[str] = []  # noqa: RUF012 (what makes it a package to the import system)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@contextmanager
def stand_in_for(*names: str) -> Iterator[None]:
    """Let modules be imported that are not there, inside a ``with``.

    Some readers of sound files and of a graphics card's memory exist as source for a compiler alone. The packages
    import them at the top; the networks and their weights need nothing of them.

    >>> with stand_in_for("reader_of_a_card"):
    ...     from reader_of_a_card import memory
    >>> memory is None
    True
    """
    added = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Absent(name) for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
