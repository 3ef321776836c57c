"""Expand tuples of units until no coordinate is a tuple itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids


def resolved(products: Sequence[tuple[Ids, Ids]], final: Ids) -> Ids:
    """Expand coordinates until none has coordinates itself.

    Shapes:
        (units, most coordinates), filled up with -1.

    >>> inner, outer = (np.array([2]), np.array([[0, 1]])), (np.array([3]), np.array([[2, 1]]))
    >>> resolved([outer, inner], np.arange(4)).tolist()
    [[-1, -1, -1], [-1, -1, -1], [0, 1, -1], [0, 1, 1]]
    """
    rows: Ids = np.full((len(final), 0), -1, dtype=np.int64)
    # What is taken out later may be a coordinate of what was taken out before, and never the other way round.
    for members, coordinates in reversed(products):
        wide = np.concatenate([_expanded(rows, column) for column in final[coordinates].T], axis=1)
        wide = wide[:, (wide >= 0).any(axis=0)]
        more = max(0, wide.shape[1] - rows.shape[1])
        rows = np.pad(rows, ((0, 0), (0, more)), constant_values=-1)
        rows[members, : wide.shape[1]] = wide
    return rows


def _expanded(rows: Ids, units: Ids) -> Ids:
    """Replace each unit by its coordinates, if any.

    >>> _expanded(np.array([[-1, -1], [5, 6]]), np.array([0, 1])).tolist()
    [[0, -1], [5, 6]]
    """
    coordinates = rows[units] if rows.shape[1] else np.full((len(units), 1), -1, dtype=np.int64)
    coordinates[:, 0] = np.where(coordinates[:, 0] < 0, units, coordinates[:, 0])
    return coordinates
