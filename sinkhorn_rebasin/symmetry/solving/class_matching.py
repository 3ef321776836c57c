"""First step of the solution: whole classes of units that are matched one to one become one class."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.relations import Relations


class ClassMatching:
    """A union-find over classes of units in which each class remembers how it is matched with its root."""

    def __init__(self, relations: Relations) -> None:
        self._starts = np.array([*relations.class_starts, relations.count], dtype=np.int64)
        self._sizes = np.diff(self._starts)
        self._class_of = relations.classes()
        self._root = np.arange(len(self._sizes))
        self._place: list[Ids] = [np.arange(size) for size in self._sizes]

    def representatives(self, units: Ids) -> Ids:
        """The unit of the root class that each of these units, all of one class, is matched with."""
        one = int(self._class_of[units[0]])
        root = self._find(one)
        return self._starts[root] + self._place[one][units - self._starts[one]]

    def match(self, left: Ids, right: Ids) -> bool:
        """Merge two whole classes given pairs of representatives; False when they are no such matching."""
        first, second = int(self._class_of[left[0]]), int(self._class_of[right[0]])
        if first == second or not self._is_whole(first, left) or not self._is_whole(second, right):
            return False
        place = np.empty(len(left), dtype=np.int64)
        place[right - self._starts[second]] = left - self._starts[first]
        self._root[second], self._place[second] = first, place
        return True

    def says_nothing(self, left: Ids, right: Ids) -> bool:
        """Whether the units of a whole class are related to themselves, and to nothing else."""
        return np.array_equal(left, right) and self._is_whole(int(self._class_of[left[0]]), left)

    def all_representatives(self) -> Ids:
        """The representative of every unit."""
        parts = [self._starts[self._find(one)] + self._place[one] for one in range(len(self._sizes))]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def _is_whole(self, one: int, units: Ids) -> bool:
        """Whether these are the units of a class, each of them once."""
        if len(units) != self._sizes[one]:
            return False
        return bool((np.bincount(units - self._starts[one], minlength=len(units)) == 1).all())

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
    representative = matching.all_representatives()
    return representative, [(representative[a], representative[b], kind) for a, b, kind in pending]
