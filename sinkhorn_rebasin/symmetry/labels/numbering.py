"""Number equal values, or equal tuples of values, alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Column = NDArray[Any]
_ROOM = 1 << 62
_NARROW = 8
"""Range of integers, for each entry, up to which marking them is faster than sorting."""


def mix(values: Column) -> Hashes:
    """Scatter integers over 64 bits.

    Source: the finalizer of SplitMix64; Steele, Lea and Flood, 2014.
    """
    z = values.astype(np.uint64)  # a copy, which is then changed in place
    z += np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def combine(first: Hashes, second: Column) -> Hashes:
    """Hash two values, in order, to one."""
    return mix(first * np.uint64(3) + mix(second))


def row_hashes(rows: Column) -> Hashes:
    """Hash each row of a table of integers.

    Note:
        Rows that differ share a hash once in 2^64.
    """
    weights = mix(np.arange(rows.shape[1])) | np.uint64(1)
    return mix((mix(rows) * weights).sum(axis=1, dtype=np.uint64))


def keyed(*columns: Column) -> Column:
    """Key each position by its entries in all columns.

    The keys need not start at 0: :func:`factorize` numbers them.
    """
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
    """Number equal tuples of entries alike, from 0 on.

    >>> factorize(np.array([7, 3, 7]), np.array([0, 0, 0])).tolist()
    [1, 0, 1]
    """
    key = keyed(*columns)
    if not key.size:
        return np.empty(0, dtype=np.int64)
    narrow = _marked(key)
    if narrow is not None:
        marks, low = narrow
        return (np.cumsum(marks, dtype=np.int64) - 1)[key - low]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    numbers = np.empty(len(key), dtype=np.int64)
    numbers[order] = np.cumsum(_begins(ordered)) - 1
    return numbers


def factorize_by_appearance(key: Column) -> tuple[Ids, Ids]:
    """Number distinct entries by first appearance.

    Returns the first positions, and the number at every position.

    >>> [part.tolist() for part in factorize_by_appearance(np.array([7, 3, 7]))]
    [[0, 1], [0, 1, 0]]
    """
    key = key.ravel()
    place = factorize(key)
    first = first_places(place)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[place]


def distinct(*columns: Column) -> tuple[Column, ...]:
    """Keep one position of each distinct tuple.

    >>> [column.tolist() for column in distinct(np.array([1, 1, 2]), np.array([5, 5, 5]))]
    [[1, 2], [5, 5]]
    """
    if _ascends(columns[0].ravel()):
        return tuple(column.ravel() for column in columns)
    first = first_places(factorize(*columns))
    return tuple(column.ravel()[first] for column in columns)


def counted(values: Column) -> tuple[Column, Ids]:
    """List distinct integers, ascending, and count each.

    >>> [part.tolist() for part in counted(np.array([7, 3, 7]))]
    [[3, 7], [1, 2]]
    """
    flat = values.ravel()
    if _ascends(flat):
        return flat, np.ones(len(flat), dtype=np.int64)
    return distinct_values(flat), np.bincount(factorize(flat))


def distinct_values(values: Column) -> Column:
    """List each of an array's integers once, ascending.

    :func:`numpy.unique` hashes; most of these arrays are ascending already, or hold a narrow range of integers.

    >>> [distinct_values(np.array(values)).tolist() for values in ([2, 5, 9], [7, 3, 7], [-(2**60), 0, 0])]
    [[2, 5, 9], [3, 7], [-1152921504606846976, 0]]
    """
    flat = values.ravel()
    if _ascends(flat):
        return flat.copy()
    narrow = _marked(flat)
    if narrow is not None:
        marks, low = narrow
        return np.flatnonzero(marks).astype(flat.dtype) + low
    ordered = np.sort(flat)
    return ordered[_begins(ordered)]


def _ascends(flat: Column) -> bool:
    """Tell whether integers ascend."""
    return flat.size < 2 or bool((flat[1:] > flat[:-1]).all())


def _begins(ordered: Column) -> NDArray[np.bool_]:
    """Flag the first of equal neighbours."""
    return np.concatenate([[True], ordered[1:] != ordered[:-1]])


def first_places(numbers: Ids) -> Ids:
    """Find where each number from 0 on first stands."""
    first = np.empty(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
    first[numbers[::-1]] = np.arange(len(numbers) - 1, -1, -1)
    return first


def count_distinct(*columns: Column) -> int:
    """Count the distinct tuples of entries."""
    return len(distinct_values(keyed(*columns)))


def ranks(values: Column) -> Ids:
    """Count the equal entries before each entry.

    >>> ranks(np.array([5, 7, 5, 5, 7])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    counts = np.empty(len(values), dtype=np.int64)
    counts[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return counts


def determines(first: Column, second: Column) -> bool:
    """Tell whether the first array's entries determine the second's."""
    if _ascends(first.ravel()):
        return True
    return count_distinct(first) == count_distinct(first, second)


def _marked(flat: Column) -> tuple[Column, Any] | None:
    """Mark the integers that occur, where their range is narrow.

    The smallest of them, which has the first mark, comes with the marks.
    """
    low, high = flat.min(), flat.max()
    if int(high) - int(low) >= _NARROW * flat.size:
        return None
    marks = np.zeros(int(high) - int(low) + 1, dtype=bool)
    marks[flat - low] = True
    return marks, low


def _small(column: Column) -> tuple[Column, int]:
    """Shift a column to start at 0."""
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
