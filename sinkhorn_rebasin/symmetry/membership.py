"""Which positions of an array of traced units belong to a group, and where in its units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.labels import Labels
from sinkhorn_rebasin.symmetry.numbering import Hashes, Ids
from sinkhorn_rebasin.symmetry.solution import Solution

_MOST_PLACES = 1 << 24


@dataclass(frozen=True)
class Members:
    """Flat positions at which units of a group lie: which unit, the place in it that other groups give, its role."""

    length: int
    positions: Ids
    unit: Ids
    inside: Ids
    role: Hashes

    def spread(self) -> Members:
        """The same at every position: unit -1 where there is none."""
        unit, inside = np.full(self.length, -1, dtype=np.int64), np.zeros(self.length, dtype=np.int64)
        role = np.zeros(self.length, dtype=np.uint64)
        unit[self.positions], inside[self.positions] = self.unit, self.inside
        role[self.positions] = self.role
        return Members(self.length, np.arange(self.length), unit, inside, role)


class Memberships:
    """Answers for one solution, whose groups it looks up by number."""

    def __init__(self, solution: Solution) -> None:
        self.groups = solution.groups
        self._solution = solution
        self._sizes = np.array([*(group.size for group in solution.groups), 1], dtype=np.int64)
        self._parents = np.array([*(group.parent for group in solution.groups), -1], dtype=np.int64)
        self._known: dict[tuple[int, int], tuple[Ids, Members]] = {}
        self._descendants: dict[int, NDArray[np.bool_]] = {}
        self._has_pairs = bool((solution.pair >= 0).any())

    def groups_on(self, labels: Labels) -> list[int]:
        """Groups, with their ancestors, that have units on a tensor."""
        self._known.clear()  # what was looked up for the tensor before is not asked for again
        found: set[int] = set()
        pairs = self._solution.pair[labels.units]
        units = np.concatenate([labels.units, pairs[pairs >= 0]])
        for leaf in np.unique(self._solution.group[units]):
            found.update(self._chain(int(leaf)))
        return sorted(group for group in found if self.groups[group].valid)

    def of(self, ids: Ids, group: int) -> Members:
        """Where units of a group lie in an array of units."""
        if (id(ids), group) not in self._known:
            self._known[id(ids), group] = (ids, self._find(ids.ravel(), group))
        return self._known[id(ids), group][1]

    def _find(self, flat: Ids, group: int) -> Members:
        leaf = np.where(flat >= 0, self._solution.group[flat], -1)
        positions = np.flatnonzero(self._below(group)[leaf])
        unit, inside = self._own(flat[positions], group)
        if self._has_pairs:
            paired = np.flatnonzero((flat >= 0) & (self._solution.pair[flat, 0] >= 0))
            both, place = self._paired(self._solution.pair[flat[paired]], group)
            held = both >= 0
            positions = np.concatenate([positions, paired[held]])
            unit, inside = np.concatenate([unit, both[held]]), np.concatenate([inside, place[held]])
        return Members(len(flat), positions, unit, inside, self._solution.role[flat[positions]])

    def _below(self, group: int) -> NDArray[np.bool_]:
        """For every group, and the number -1 for none, whether it is this one or lies in it."""
        if group not in self._descendants:
            chains = [group in self._chain(leaf) for leaf in range(len(self.groups))]
            self._descendants[group] = np.array([*chains, False])
        return self._descendants[group]

    def _chain(self, group: int) -> list[int]:
        """A group and its ancestors."""
        found = []
        while group >= 0:
            found.append(group)
            group = self.groups[group].parent
        return found

    def _paired(self, pair: Ids, group: int) -> tuple[Ids, Ids]:
        """The same for units that are pairs of two others, one of which may be in the group."""
        left, left_inside = self._own(pair[:, 0], group)
        right, right_inside = self._own(pair[:, 1], group)
        # Where only one of the two is in the group, the other one's number among its like tells the places apart.
        left_place = np.where(left >= 0, left_inside, self._number(pair[:, 0]))
        right_place = np.where(right >= 0, right_inside, self._number(pair[:, 1]))
        return np.maximum(left, right), left_place * _MOST_PLACES + right_place

    def _number(self, units: Ids) -> Ids:
        """Number of a unit in its block."""
        group = self._solution.group[units]
        return np.where(group >= 0, self._solution.unit[units] % self._sizes[group], 0)

    def _own(self, units: Ids, group: int) -> tuple[Ids, Ids]:
        """Unit of a group that each traced unit lies in (-1: none), and the place inside it."""
        leaf, unit = self._solution.group[units], self._solution.unit[units]
        inside, scale = np.zeros_like(unit), np.ones_like(unit)
        result = np.full_like(unit, -1)
        active = leaf >= 0
        while active.any():
            arrived = active & (leaf == group)
            result[arrived] = unit[arrived]
            active &= ~arrived
            sizes = self._sizes[leaf]
            inside = np.where(active, inside + scale * (unit % sizes), inside)
            scale = np.where(active, scale * sizes, scale)
            unit = np.where(active, unit // sizes, unit)
            leaf = np.where(active, self._parents[leaf], leaf)
            active &= leaf >= 0
        return result, inside
