"""The graph that tracing leaves behind: units, the relations between them, and the marks that tell them apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass
class Relations:
    """Units are integers from 0 on, made in classes; relations join units, marks single units out.

    A symmetry must carry related units to related units of the same kind and marked units to units with the
    same mark. More relations and marks only mean fewer symmetries, so over-stating them is always safe.
    """

    class_starts: list[int] = field(default_factory=list)
    count: int = 0
    edges: list[tuple[Ids, Ids, int]] = field(default_factory=list)
    marks: list[tuple[Ids, Ids, int]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    _kinds: int = 0

    def new_units(self, shape: tuple[int, ...]) -> Ids:
        """Fresh units, one per position of an array of this shape; they form one class."""
        size = int(np.prod(shape, dtype=np.int64))
        self.class_starts.append(self.count)
        units = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return units

    def new_kind(self) -> int:
        """A kind of relation that nothing else has: every event in the trace is a kind of its own."""
        self._kinds += 1
        return self._kinds

    def relate(self, left: Ids, right: Ids) -> None:
        """Units that stand at the same position (of two arrays of one shape) belong together.

        Negative entries are fixed values; a unit that meets one is marked with it.
        """
        left, right = left.ravel(), right.ravel()
        kind = self.new_kind()
        both = (left >= 0) & (right >= 0)
        if both.any():
            pairs = np.unique(np.stack([left[both], right[both]]), axis=1)
            self.edges.append((pairs[0], pairs[1], kind))
        for units, values in ((left, right), (right, left)):
            marked = (units >= 0) & (values < 0)
            if marked.any():
                pairs = np.unique(np.stack([units[marked], values[marked]]), axis=1)
                self.marks.append((pairs[0], pairs[1], kind))

    def fix(self, units: Ids, reason: str) -> None:
        """Each of these units stays where it is."""
        chosen = np.unique(units[units >= 0])
        if len(chosen):
            kind = self.new_kind()
            self.reasons[kind] = reason
            self.marks.append((chosen, np.arange(len(chosen), dtype=np.int64), kind))

    def classes(self) -> Ids:
        """Class of every unit, (count,)."""
        lengths = np.diff([*self.class_starts, self.count])
        return np.repeat(np.arange(len(self.class_starts), dtype=np.int64), lengths)
