"""Drop rescalings of blocks that inner units can do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import PermutationSpec, ScaleSymmetry

_Place = tuple[str, tuple[int, ...]]


def independent(spec: PermutationSpec, generators: Sequence[ScaleSymmetry]) -> list[ScaleSymmetry]:
    """Drop a parent's generators that nested ones combine to.

    Scaling the queries of a head and dividing its keys is what scaling all of its inner units does.
    """
    return [one for one in generators if not _combined(spec, one, _inside(spec, one, generators))]


def _inside(
    spec: PermutationSpec, outer: ScaleSymmetry, generators: Sequence[ScaleSymmetry]
) -> list[ScaleSymmetry]:
    """List generators of the same kind in descendant groups."""
    return [one for one in generators if one.kind == outer.kind and outer.group in spec.ancestors(one.group)]


def _combined(spec: PermutationSpec, outer: ScaleSymmetry, inner: Sequence[ScaleSymmetry]) -> bool:
    """Tell whether inner exponents combine to the outer ones."""
    if not inner:
        return False
    totals = [_totals(spec, one) for one in (outer, *inner)]
    places = sorted({place for total in totals for place in total})
    columns = np.stack([_joined(spec, total, places) for total in totals], axis=1)
    rest = columns[:, 1:] @ np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=None)[0] - columns[:, 0]
    return bool(np.abs(rest).max() < 1e-6)


def _totals(spec: PermutationSpec, generator: ScaleSymmetry) -> dict[_Place, NDArray[np.float64]]:
    """Add up the exponent of every position."""
    totals: dict[_Place, NDArray[np.float64]] = {}
    for slot, exponent in generator.exponents:
        place = (slot.tensor, slot.axes)
        totals.setdefault(place, np.zeros(_length(spec, place)))[slot.layout.table().ravel()] += exponent
    return totals


def _joined(
    spec: PermutationSpec, total: dict[_Place, NDArray[np.float64]], places: Sequence[_Place]
) -> NDArray[np.float64]:
    """Concatenate exponents over all places."""
    return np.concatenate([total.get(place, np.zeros(_length(spec, place))) for place in places])


def _length(spec: PermutationSpec, place: _Place) -> int:
    """Count the positions of a place."""
    tensor, axes = place
    return math.prod(spec.shapes[tensor][axis] for axis in axes)
