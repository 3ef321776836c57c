"""What the command writes to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def say(text: object) -> None:
    """Write a line of results."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: object) -> None:
    """Write a line about what went wrong."""
    sys.stderr.write(f"sinkhorn-rebasin: {text}\n")


def table(rows: Sequence[tuple[str, object]]) -> str:
    """Write names and values, one row a line.

    >>> print(table([("class", "MLP"), ("tensors", 4)]))
    class    MLP
    tensors  4
    """
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
