"""Contract classes of units that are matched one to one."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.relations import Relations


class ClassMatching:
    """Unite matched classes; each remembers its matching."""

    def __init__(self, relations: Relations) -> None:
        self._starts = np.array([*relations.class_starts, relations.count], dtype=np.int64)
        self._sizes = np.diff(self._starts)
        self._class_of = relations.classes()
        self._root = np.arange(len(self._sizes))
        self._place: list[Ids] = [np.arange(size) for size in self._sizes]

    def representatives(self, units: Ids) -> Ids:
        """Map a class's units to its root."""
        number = int(self._class_of[units[0]])
        root = self._find(number)
        return self._starts[root] + self._place[number][units - self._starts[number]]

    def match(self, left: Ids, right: Ids) -> bool:
        """Merge two whole classes by pairs of representatives.

        False when the pairs are no such matching.
        """
        first, second = int(self._class_of[left[0]]), int(self._class_of[right[0]])
        if first == second or not self._is_whole(first, left) or not self._is_whole(second, right):
            return False
        place = np.empty(len(left), dtype=np.int64)
        place[right - self._starts[second]] = left - self._starts[first]
        self._root[second], self._place[second] = first, place
        return True

    def says_nothing(self, left: Ids, right: Ids) -> bool:
        """Tell whether a class is only related to itself."""
        return np.array_equal(left, right) and self._is_whole(int(self._class_of[left[0]]), left)

    def all_representatives(self) -> Ids:
        """Map every unit to a unit of its root."""
        parts = [self._starts[self._find(number)] + self._place[number] for number in range(len(self._sizes))]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def _is_whole(self, number: int, units: Ids) -> bool:
        """Tell whether units make a whole class."""
        if len(units) != self._sizes[number]:
            return False
        return bool((np.bincount(units - self._starts[number], minlength=len(units)) == 1).all())

    def _find(self, number: int) -> int:
        """Find the root of a class."""
        parent = int(self._root[number])
        if parent == number:
            return number
        root = self._find(parent)
        if root != parent:
            self._place[number] = self._place[parent][self._place[number]]
            self._root[number] = root
        return root


def contract_classes(relations: Relations) -> tuple[Ids, list[tuple[Ids, Ids, int]]]:
    """Contract matched classes; return representatives and remaining relations.

    >>> relations = Relations()
    >>> relations.relate(relations.new_units((2,)), relations.new_units((2,)))
    >>> [part if isinstance(part, list) else part.tolist() for part in contract_classes(relations)]
    [[0, 1, 0, 1], []]
    """
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
