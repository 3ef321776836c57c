"""Equal values, or equal tuples of values, as equal numbers from 0 on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Column = NDArray[Any]
_ROOM = 1 << 62


def mix(values: Column) -> Hashes:
    """Scatter integers over 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def combine(first: Hashes, second: Column) -> Hashes:
    """One hash of two, in order."""
    return mix(first * np.uint64(3) + mix(second))


def row_hashes(rows: Column) -> Hashes:
    """One hash a row of a table of integers; rows that differ get the same one once in 2^64."""
    weights = mix(np.arange(rows.shape[1])) | np.uint64(1)
    return mix((mix(rows) * weights).sum(axis=1, dtype=np.uint64))


def keyed(*columns: Column) -> Column:
    """One integer a position that is equal where the entries of all columns are; cheap, not from 0 on."""
    key, room = columns[0].ravel(), _ROOM
    for column in columns[1:]:
        key, first_room = _small(key)
        column, room = _small(column.ravel())
        if first_room * room >= _ROOM:
            key, column = factorize(key), factorize(column)
            room = int(column.max()) + 1
        key = key * room + column
    return key


def factorize(*columns: Column) -> Ids:
    """Equal tuples of entries as equal numbers from 0 on, in the order of the tuples' keys."""
    key = keyed(*columns)
    if not key.size:
        return np.empty(0, dtype=np.int64)
    return np.unique(key, return_inverse=True)[1].ravel().astype(np.int64)


def factorize_by_appearance(key: Column) -> tuple[Ids, Ids]:
    """Where each distinct entry appears first, in that order, and which of them stands at every position."""
    _, first, place = np.unique(key.ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[place.ravel()]


def distinct(*columns: Column) -> tuple[Column, ...]:
    """The columns at one position of each distinct tuple."""
    _, first = np.unique(keyed(*columns), return_index=True)
    return tuple(column.ravel()[first] for column in columns)


def count_distinct(*columns: Column) -> int:
    """How many distinct tuples of entries there are."""
    return len(np.unique(keyed(*columns)))


def ranks(values: Column) -> Ids:
    """How many equal entries stand before each.

    >>> ranks(np.array([5, 7, 5, 5, 7])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return found


def determines(first: Column, second: Column) -> bool:
    """Whether equal entries of the first array always come with equal entries of the second."""
    return count_distinct(first) == count_distinct(first, second)


def _small(column: Column) -> tuple[Column, int]:
    """A column moved to start at 0, and one more than its largest entry."""
    if not column.size:
        return column.astype(np.int64), 1
    if column.dtype == np.uint64:
        column = factorize(column)
    low = int(column.min())
    high = int(column.max()) - low + 1
    if high >= 1 << 61:
        column = factorize(column)
        return column, int(column.max()) + 1
    return column.astype(np.int64) - low, high
