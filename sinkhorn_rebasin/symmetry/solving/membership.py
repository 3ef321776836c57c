"""Which positions of an array of traced units belong to a group, and where in its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Hashes, Ids
from sinkhorn_rebasin.symmetry.solving.solver import Solution


@dataclass(frozen=True)
class Members:
    """The flat positions of an array that hold units of a group.

    Attributes:
        length: how many positions the array has.
        positions: those that hold units of the group, (k,).
        unit: which unit of the group each holds, (k,); one more than the last where coordinates disagree.
        inside: what tells apart the positions of one unit, (places, k): equal columns at matching positions.
        role: the part each plays in its unit, (k,).
    """

    length: int
    positions: Ids
    unit: Ids
    inside: Ids
    role: Hashes

    def spread(self) -> Members:
        """The same at every position: unit -1 where there is none."""
        unit, role = np.full(self.length, -1, dtype=np.int64), np.zeros(self.length, dtype=np.uint64)
        inside = np.zeros((len(self.inside), self.length), dtype=np.int64)
        unit[self.positions], inside[:, self.positions] = self.unit, self.inside
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
        self._product: NDArray[np.bool_] = np.any(solution.coordinates >= 0, axis=1)

    def groups_on(self, labels: Labels) -> list[int]:
        """Groups, with their ancestors, that have units on a tensor."""
        self._known.clear()  # what was looked up for the tensor before is not asked for again
        found: set[int] = set()
        coordinates = self._solution.coordinates[labels.units]
        units = np.concatenate([labels.units, coordinates[coordinates >= 0]])
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
        inside = inside[None]
        if self._solution.coordinates.shape[1]:
            tuples = np.flatnonzero((flat >= 0) & self._product[flat])
            both, places = self._of_tuples([*self._solution.coordinates[flat[tuples]].T], group)
            held = both >= 0
            positions = np.concatenate([positions, tuples[held]])
            unit = np.concatenate([unit, both[held]])
            alone = np.zeros((len(places), inside.shape[1]), dtype=np.int64)
            alone[:1] = inside
            inside = np.concatenate([alone, places[:, held]], axis=1)
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

    def _of_tuples(self, coordinates: Sequence[Ids], group: int) -> tuple[Ids, Ids]:
        """The unit of a group that tuples lie in, (k,), and what each coordinate says about the place, (places, k).

        Coordinates that are not in the group say which of their like they are.
        """
        unit = np.full(len(coordinates[0]), -1, dtype=np.int64)
        places = []
        for one in coordinates:
            own, inside = self._own(one, group)
            own = np.where(one >= 0, own, -1)
            places.append(np.where(own >= 0, inside, self._number(one)))
            places.append(self._solution.node_role[one].view(np.int64))
            disagree = (own >= 0) & (unit >= 0) & (own != unit)
            unit = np.where(
                disagree, self.groups[group].size * self.groups[group].blocks, np.maximum(own, unit)
            )
        return unit, np.stack(places)

    def _number(self, units: Ids) -> Ids:
        """What tells a unit from its like: its number in its group, or its own where it has none."""
        return np.where(self._solution.group[units] >= 0, self._solution.unit[units], units)

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
