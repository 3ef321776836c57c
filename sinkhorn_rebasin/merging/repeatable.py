"""Data that can be gone through more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import batches_in


def repeatable(data: Iterable[Any] | None) -> Iterable[Any]:
    """Return data that can be gone through again.

    Raises:
        DataError: there are none, an iterator, or what yields no batches.

    >>> repeatable([1])
    [1]
    """
    if data is None:
        raise DataError("Expected data, batches of inputs to see both networks on, but got None.")
    if isinstance(data, Iterator):
        raise DataError(
            f"Expected data that can be gone through twice but got {type(data).__name__}, an iterator: pass a list "
            f"or a DataLoader."
        )
    return batches_in(data)
