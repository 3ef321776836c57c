"""What the command writes to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from sinkhorn_rebasin.errors import listed


def say(text: object) -> None:
    """Write a line of results."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: object) -> None:
    """Write a line about what went wrong."""
    sys.stderr.write(f"sinkhorn-rebasin: {text}\n")


def say_apart(names: Collection[str]) -> None:
    """Write which layers each network keeps for itself, where there are some."""
    if names:
        say(f"kept apart: {listed(sorted(names), most=8)}; each network keeps its own")


def table(rows: Sequence[tuple[str, object]]) -> str:
    """Write names and values, one row a line.

    >>> print(table([("class", "MLP"), ("tensors", 4)]))
    class    MLP
    tensors  4
    """
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
