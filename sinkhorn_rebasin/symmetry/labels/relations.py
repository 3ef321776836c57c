"""The graph that tracing leaves behind: units, the relations between them, and the marks that tell them apart."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, distinct, factorize
from sinkhorn_rebasin.symmetry.labels.origin import Origin


@dataclass(frozen=True)
class Implied:
    """An array of units that says no more than narrower arrays do, and the places of its axes those cover.

    ``units`` follow from the wide array; ``fixed`` are values that must be along for the two to mean the same.
    """

    wide: Ids
    units: tuple[tuple[tuple[int, ...], Ids], ...]
    fixed: tuple[tuple[tuple[int, ...], Ids], ...]


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
    implied: dict[int, Implied] = field(default_factory=dict)
    origins: dict[int, Origin] = field(default_factory=dict)
    origin: Origin | None = None
    _kinds: int = 0

    def new_units(self, shape: tuple[int, ...]) -> Ids:
        """Fresh units, one per position of an array of this shape; they form one class."""
        size = int(np.prod(shape, dtype=np.int64))
        self.class_starts.append(self.count)
        units = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return units

    def new_kind(self) -> int:
        """A kind of relation that nothing else has: every event in the trace is a kind of its own.

        It remembers the operation that is being interpreted, which the tape leaves in ``origin``.
        """
        self._kinds += 1
        if self.origin is not None:
            self.origins[self._kinds] = self.origin
        return self._kinds

    def relate(self, left: Ids, right: Ids) -> None:
        """Units that stand at the same position (of two arrays of one shape) belong together.

        Negative entries are fixed values; a unit that meets one is marked with it. Pairs of different classes are
        of different kinds, so that they stay apart when the classes are matched with each other.
        """
        left, right = left.ravel(), right.ravel()
        kind = self.new_kind()
        both = (left >= 0) & (right >= 0)
        if both.any():
            first, second = distinct(left[both], right[both])
            self._add_edges(first, second, kind)
        for units, values in ((left, right), (right, left)):
            marked = (units >= 0) & (values < 0)
            if marked.any():
                first, second = distinct(units[marked], values[marked])
                self.marks.append((first, second, kind))

    def _add_edges(self, left: Ids, right: Ids, kind: int) -> None:
        """Edges of one kind for each pair of classes."""
        pair = factorize(self._class_of(left), self._class_of(right))
        for one in range(int(pair.max()) + 1):
            chosen = pair == one
            self.edges.append((left[chosen], right[chosen], self.new_kind() if one else kind))

    def class_of(self, unit: int) -> int:
        """The class that a unit was made in."""
        return bisect_right(self.class_starts, unit) - 1

    def _class_of(self, units: Ids) -> Ids:
        return np.searchsorted(np.array(self.class_starts, dtype=np.int64), units, side="right") - 1

    def fix(self, units: Ids, reason: str) -> None:
        """Each of these units stays where it is."""
        chosen = np.unique(units[units >= 0])
        if len(chosen):
            kind = self.new_kind()
            self.reasons[kind] = reason
            self.marks.append((chosen, np.arange(len(chosen), dtype=np.int64), kind))

    def fix_untouched(self, units: Ids, reason: str) -> None:
        """Of units that all came with one tensor, fix those that nothing relates or marks when it does others."""
        touched = self._touched()
        self.fix(units[self._partly(units, touched) & ~touched[units]], reason)

    def fix_partly_untouched(self, units: Ids, reason: str) -> None:
        """Fix all of the units that came with one tensor when something relates or marks some of them alone."""
        self.fix(units[self.partly_untouched(units)], reason)

    def partly_untouched(self, units: Ids) -> NDArray[np.bool_]:
        """Which of these units came with one tensor of which something relates or marks some units alone."""
        return self._partly(units, self._touched())

    def is_partial(self, units: Ids) -> bool:
        """Whether others of the classes of these units are not among them."""
        sizes = np.diff([*self.class_starts, self.count])
        found, counts = np.unique(self._class_of(units), return_counts=True)
        return bool((counts < sizes[found]).any())

    def tied_to(self, units: Ids) -> NDArray[np.bool_]:
        """For every unit, whether relations lead from it to one of these, or its class is marked."""
        classes = len(self.class_starts)
        of = self.classes()
        pairs = [np.unique(np.stack([of[left], of[right]]), axis=1) for left, right, _ in self.edges]
        source, target = np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)
        links = coo_array((np.ones(len(source), dtype=np.int64), (source, target)), shape=(classes, classes))
        component = connected_components(links, directed=False)[1]
        good = np.zeros(classes, dtype=bool)
        good[component[of[units]]] = True
        for marked, _, _ in self.marks:
            good[component[of[marked]]] = True
        return np.asarray(good[component][of])

    def _touched(self) -> NDArray[np.bool_]:
        """Which units something relates or marks."""
        touched = np.zeros(self.count, dtype=bool)
        for left, right, _ in self.edges:
            touched[left] = touched[right] = True
        for marked, _, _ in self.marks:
            touched[marked] = True
        return touched

    def _partly(self, units: Ids, touched: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of these units are of a class of which some are touched, and some are not."""
        classes = self._class_of(units)
        found = np.zeros((2, len(self.class_starts)), dtype=bool)
        found[touched[units].astype(int), classes] = True
        return np.asarray(found.all(axis=0))[classes]

    def mark_partial(self, ids: Ids, reason: str) -> None:
        """Tell units apart that occur less or more often than others of their class.

        What is about to happen to the units of this array does not happen to the rest of their class, or not as
        often: a sum over some of the units, or a function of some of them.
        """
        units, counts = np.unique(ids[ids >= 0], return_counts=True)
        if not len(units) or (self._is_one_class(units) and bool((counts == counts[0]).all())):
            return
        kind = self.new_kind()
        self.reasons[kind] = reason
        starts = np.array(self.class_starts, dtype=np.int64)
        sizes = np.diff([*self.class_starts, self.count])
        of = np.searchsorted(starts, units, side="right") - 1
        for one in np.unique(of):
            mine = of == one
            if int(mine.sum()) < sizes[one] or len(np.unique(counts[mine])) > 1:
                self.marks.append((units[mine], counts[mine], kind))

    def _is_one_class(self, units: Ids) -> bool:
        first, last = int(units[0]), int(units[-1])
        place = bisect_right(self.class_starts, first)
        end = self.class_starts[place] if place < len(self.class_starts) else self.count
        return self.class_starts[place - 1] == first and end == last + 1 == first + len(units)

    def classes(self) -> Ids:
        """Class of every unit, (count,)."""
        lengths = np.diff([*self.class_starts, self.count])
        return np.repeat(np.arange(len(self.class_starts), dtype=np.int64), lengths)
