"""First step of the solution: whole classes of units that are matched one to one become one class."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.numbering import Ids
from sinkhorn_rebasin.symmetry.relations import Relations


class ClassMatching:
    """A union-find over classes of units in which each class remembers how it is matched with its root."""

    def __init__(self, relations: Relations) -> None:
        self._starts = np.array([*relations.class_starts, relations.count], dtype=np.int64)
        self._sizes = np.diff(self._starts)
        self._class_of = relations.classes()
        self._root = np.arange(len(self._sizes))
        self._place: list[Ids] = [np.arange(size) for size in self._sizes]

    def representatives(self, units: Ids) -> Ids:
        """The unit of the root class that each unit is matched with."""
        result = np.empty_like(units)
        classes = self._class_of[units]
        for one in np.unique(classes):
            chosen = classes == one
            root = self._find(int(one))
            result[chosen] = self._starts[root] + self._place[one][units[chosen] - self._starts[one]]
        return result

    def match(self, left: Ids, right: Ids) -> bool:
        """Merge two whole classes given pairs of representatives; False when they are no such matching."""
        classes = self._class_of[left], self._class_of[right]
        if len(np.unique(classes[0])) != 1 or len(np.unique(classes[1])) != 1:
            return False
        first, second = int(classes[0][0]), int(classes[1][0])
        sizes = {int(self._sizes[first]), int(self._sizes[second]), len(left)}
        if first == second or len(sizes) != 1 or len(np.unique(left)) != len(left):
            return False
        if len(np.unique(right)) != len(right):
            return False
        place = np.empty(len(left), dtype=np.int64)
        place[right - self._starts[second]] = left - self._starts[first]
        self._root[second], self._place[second] = first, place
        return True

    def says_nothing(self, left: Ids, right: Ids) -> bool:
        """Whether the units of whole classes are related to themselves, and to nothing else."""
        if not np.array_equal(left, right):
            return False
        units = np.unique(left)
        classes = np.unique(self._class_of[units])
        return len(units) == int(self._sizes[classes].sum())

    def _find(self, one: int) -> int:
        parent = int(self._root[one])
        if parent == one:
            return one
        root = self._find(parent)
        if root != parent:
            self._place[one] = self._place[parent][self._place[one]]
            self._root[one] = root
        return root


def contract_classes(relations: Relations) -> tuple[Ids, list[tuple[Ids, Ids, int]]]:
    """Representative of every unit, and the relations between representatives that remain."""
    matching = ClassMatching(relations)
    pending = list(relations.edges)
    changed = True
    while changed and pending:
        changed, left_over = False, []
        for left, right, kind in pending:
            a, b = matching.representatives(left), matching.representatives(right)
            if matching.says_nothing(a, b) or matching.match(a, b):
                changed = True
            else:
                left_over.append((left, right, kind))
        pending = left_over
    representative = matching.representatives(np.arange(relations.count, dtype=np.int64))
    return representative, [(representative[a], representative[b], kind) for a, b, kind in pending]
