"""Keep the graph of units, relations and marks that tracing builds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, counted, distinct, distinct_values, factorize
from sinkhorn_rebasin.symmetry.labels.origin import Origin


@dataclass(frozen=True)
class Implied:
    """Hold a wide factor that narrower factors imply.

    Attributes:
        wide: the units of the wide factor.
        units: places of axes in the wide factor, with the units that imply it.
        fixed: places of axes, with fixed values that the tensor must carry as well.
    """

    wide: Ids
    units: tuple[tuple[tuple[int, ...], Ids], ...]
    fixed: tuple[tuple[tuple[int, ...], Ids], ...]


@dataclass
class Relations:
    """Collect relations between units and marks on units.

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
    _starts: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _marked: dict[int, Ids] = field(default_factory=dict)

    def new_units(self, shape: tuple[int, ...]) -> Ids:
        """Make a class of fresh units, one a position.

        >>> Relations().new_units((2, 2)).tolist()
        [[0, 1], [2, 3]]
        """
        size = int(np.prod(shape, dtype=np.int64))
        self.class_starts.append(self.count)
        units = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return units

    def new_kind(self) -> int:
        """Return a kind that no other event has.

        The kind remembers the operation in ``origin``.
        """
        self._kinds += 1
        if self.origin is not None:
            self.origins[self._kinds] = self.origin
        return self._kinds

    def relate(self, left: Ids, right: Ids) -> None:
        """Relate units at equal positions of two arrays.

        Note:
            - A unit that meets a fixed value is marked with it.
            - Pairs of different classes get different kinds, so that matched classes stay apart.

        >>> relations = Relations()
        >>> relations.relate(relations.new_units((2,)), relations.new_units((2,)))
        >>> [(left.tolist(), right.tolist()) for left, right, _ in relations.edges]
        [([0, 1], [2, 3])]
        """
        left, right = left.ravel(), right.ravel()
        kind = self.new_kind()
        both = (left >= 0) & (right >= 0)
        if both.all():
            if len(both):
                first, second = distinct(left, right)
                self._add_edges(first, second, kind)
            return
        if both.any():
            first, second = distinct(left[both], right[both])
            self._add_edges(first, second, kind)
        for units, values in ((left, right), (right, left)):
            marked = (units >= 0) & (values < 0)
            if marked.any():
                first, second = distinct(units[marked], values[marked])
                self.marks.append((first, second, kind))

    def _add_edges(self, left: Ids, right: Ids, kind: int) -> None:
        """Add edges, one kind per pair of classes."""
        if self._same_class(left) and self._same_class(right):
            self.edges.append((left, right, kind))
            return
        pair = factorize(self._class_of(left), self._class_of(right))
        for number in range(int(pair.max()) + 1):
            members = pair == number
            self.edges.append((left[members], right[members], self.new_kind() if number else kind))

    def class_of(self, unit: int) -> int:
        """Return the class that a unit was made in."""
        return bisect_right(self.class_starts, unit) - 1

    def _class_of(self, units: Ids) -> Ids:
        """Return the class of each of these units."""
        return np.searchsorted(self._class_starts(), units, side="right") - 1

    def _class_starts(self) -> Ids:
        """Return the first unit of each class, (classes,)."""
        if len(self._starts) != len(self.class_starts):
            self._starts = np.array(self.class_starts, dtype=np.int64)
        return self._starts

    def _same_class(self, units: Ids) -> bool:
        """Tell whether units, at least one, were made together."""
        return self.class_of(int(units.min())) == self.class_of(int(units.max()))

    def fix(self, units: Ids, reason: str) -> None:
        """Fix each of these units in place."""
        fixed = distinct_values(units[units >= 0])
        if len(fixed):
            kind = self.new_kind()
            self.reasons[kind] = reason
            self.marks.append((fixed, np.arange(len(fixed), dtype=np.int64), kind))

    def fix_untouched(self, units: Ids, reason: str) -> None:
        """Fix untouched units with touched siblings.

        The units all came with one tensor. Siblings are units of the same class.
        """
        touched = self._touched()
        self.fix(units[self._partly(units, touched) & ~touched[units]], reason)

    def fix_partly_untouched(self, units: Ids, reason: str) -> None:
        """Fix whole classes of which events touched a part."""
        self.fix(units[self.partly_untouched(units)], reason)

    def partly_untouched(self, units: Ids) -> NDArray[np.bool_]:
        """Find units of partly touched classes, (units,)."""
        return self._partly(units, self._touched())

    def is_partial(self, units: Ids) -> bool:
        """Tell whether a class is here only in part."""
        sizes = np.diff([*self.class_starts, self.count])
        classes, counts = counted(self._class_of(units))
        return bool((counts < sizes[classes]).any())

    def tied_to(self, units: Ids) -> NDArray[np.bool_]:
        """Find units tied to these or marked, (count,)."""
        classes = len(self.class_starts)
        of = self.classes()
        pairs = [np.stack(distinct(of[left], of[right])) for left, right, _ in self.edges]
        source, target = np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)
        links = coo_array((np.ones(len(source), dtype=np.int64), (source, target)), shape=(classes, classes))
        component = connected_components(links, directed=False)[1]
        good = np.zeros(classes, dtype=bool)
        good[component[of[units]]] = True
        for marked, _, _ in self.marks:
            good[component[of[marked]]] = True
        return np.asarray(good[component][of])

    def _touched(self) -> NDArray[np.bool_]:
        """Find units with a relation or a mark, (count,)."""
        touched = np.zeros(self.count, dtype=bool)
        for left, right, _ in self.edges:
            touched[left] = touched[right] = True
        for marked, _, _ in self.marks:
            touched[marked] = True
        return touched

    def _partly(self, units: Ids, touched: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Find units of classes that are touched in part."""
        classes = self._class_of(units)
        states = np.zeros((2, len(self.class_starts)), dtype=bool)
        states[touched[units].astype(int), classes] = True
        return np.asarray(states.all(axis=0))[classes]

    def mark_partial(self, ids: Ids, reason: str) -> None:
        """Mark units by how often an operation reads them.

        An operation that reads some units of a class, or reads them unequally often, tells the units apart.
        """
        if id(ids) in self._marked:
            return
        self._marked[id(ids)] = ids  # kept, as an id is an array's own only while it lives
        units, counts = counted(ids[ids >= 0])
        if not len(units) or (self._is_one_class(units) and bool((counts == counts[0]).all())):
            return
        kind = self.new_kind()
        self.reasons[kind] = reason
        sizes = np.diff([*self.class_starts, self.count])
        class_of = self._class_of(units)
        for number in distinct_values(class_of):
            members = class_of == number
            if int(members.sum()) < sizes[number] or len(distinct_values(counts[members])) > 1:
                self.marks.append((units[members], counts[members], kind))

    def _is_one_class(self, units: Ids) -> bool:
        """Tell whether ascending units make up one class."""
        first, last = int(units[0]), int(units[-1])
        place = bisect_right(self.class_starts, first)
        end = self.class_starts[place] if place < len(self.class_starts) else self.count
        return self.class_starts[place - 1] == first and end == last + 1 == first + len(units)

    def classes(self) -> Ids:
        """Return the class of every unit, (count,).

        >>> relations = Relations()
        >>> for size in (2, 1):
        ...     _ = relations.new_units((size,))
        >>> relations.classes().tolist()
        [0, 0, 1]
        """
        lengths = np.diff([*self.class_starts, self.count])
        return np.repeat(np.arange(len(self.class_starts), dtype=np.int64), lengths)
