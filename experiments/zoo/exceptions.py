"""What kept parameters off every permutable axis, by the operation that froze them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from sinkhorn_rebasin.permutations import PermutationSpec

PARTLY = "the rest of an axis of which a part is permuted"
SINGLE = "a single number"
_KERNEL = "convolution kernel"
# What every network freezes somewhere; not named where a tensor has another reason as well.
_OF_COURSE = (_KERNEL, "output of the network", "of an input or a constant")


def exceptions(spec: PermutationSpec, most: int = 6) -> list[dict[str, Any]]:
    """The parameter elements that lie on no permutable axis, by reason, the largest first.

    A tensor of which several axes are frozen counts once, under all of its reasons; those that every network
    has (inputs, outputs, positions in a kernel) are left out where there is another. What lies beyond the
    ``most`` largest is summed up in a last row.

    Example:
        >>> from torch import nn, randn
        >>> from sinkhorn_rebasin import discover_symmetry
        >>> spec = discover_symmetry(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), randn(4, 3))
        >>> exceptions(spec) == [
        ...     {"reason": "output of the network", "elements": 2, "tensors": 1, "example": "2.bias"}
        ... ]
        True
    """
    elements: Counter[str] = Counter()
    tensors: dict[str, list[str]] = {}
    for name in spec.shapes:
        uncovered = 0 if name in spec.buffers else _uncovered(spec, name)
        if uncovered:
            reason = _reason(spec, name)
            elements[reason] += uncovered
            tensors.setdefault(reason, []).append(name)
    rows = [
        {"reason": reason, "elements": count, "tensors": len(tensors[reason]), "example": tensors[reason][0]}
        for reason, count in elements.most_common(most)
    ]
    rest = sum(elements.values()) - sum(int(row["elements"]) for row in rows)
    if rest:
        rows.append({"reason": "all others", "elements": rest})
    return rows


def _uncovered(spec: PermutationSpec, name: str) -> int:
    """Elements of a tensor at which no axis moves."""
    shape = spec.shapes[name]
    moved = np.zeros(shape, dtype=bool)
    for slot in spec.slots_on(name):
        lengths = [shape[axis] for axis in slot.axes]
        flat = np.zeros(math.prod(lengths), dtype=bool)
        flat[slot.layout.table().ravel()] = True
        moved |= np.expand_dims(flat.reshape(lengths), [a for a in range(len(shape)) if a not in slot.axes])
        if moved.all():
            return 0
    return int(moved.size - moved.sum())


def _reason(spec: PermutationSpec, name: str) -> str:
    found = {item.axis: item.reason for item in spec.frozen if item.tensor == name}
    own = [reason for reason in found.values() if not any(word in reason for word in _OF_COURSE)]
    reasons = list(dict.fromkeys(own or (r for r in found.values() if _KERNEL not in r)))
    if spec.slots_on(name):
        reasons = [PARTLY, *reasons]
    return " and ".join(reasons) or SINGLE
