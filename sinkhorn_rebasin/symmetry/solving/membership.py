"""Find the positions of an array that belong to a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Hashes, Ids, distinct_values
from sinkhorn_rebasin.symmetry.solving.solver import Solution


@dataclass(frozen=True)
class Members:
    """Hold the positions of one group's units.

    Attributes:
        length: how many positions the array has.
        positions: flat positions that hold a unit of the group, (k,).
        unit: the unit of the group at each position, (k,). One more than the last where coordinates disagree.
        inside: the place of each position within its unit, (places, k). Equal columns match across units.
        role: the part of each position in its unit, (k,).
    """

    length: int
    positions: Ids
    unit: Ids
    inside: Ids
    role: Hashes

    def spread(self) -> Members:
        """Cover every position, with -1 as none."""
        unit, role = np.full(self.length, -1, dtype=np.int64), np.zeros(self.length, dtype=np.uint64)
        inside = np.zeros((len(self.inside), self.length), dtype=np.int64)
        unit[self.positions], inside[:, self.positions] = self.unit, self.inside
        role[self.positions] = self.role
        return Members(self.length, np.arange(self.length), unit, inside, role)


class Memberships:
    """Look up members of groups in one solution."""

    def __init__(self, solution: Solution) -> None:
        self.groups = solution.groups
        self._solution = solution
        self._sizes = np.array([*(group.size for group in solution.groups), 1], dtype=np.int64)
        self._parents = np.array([*(group.parent for group in solution.groups), -1], dtype=np.int64)
        self._known: dict[tuple[int, int], tuple[Ids, Members]] = {}
        self._descendants: dict[int, Ids] = {}
        self._by_leaf: dict[int, tuple[Ids, Ids]] = {}
        self._product: NDArray[np.bool_] = np.any(solution.coordinates >= 0, axis=1)

    def groups_on(self, labels: Labels) -> list[int]:
        """List groups, and ancestors, on a tensor."""
        self._known.clear()  # what was looked up for the tensor before is not asked for again
        self._by_leaf.clear()
        groups: set[int] = set()
        coordinates = self._solution.coordinates[labels.units]
        units = np.concatenate([labels.units, coordinates[coordinates >= 0]])
        for leaf in distinct_values(self._solution.group[units]):
            groups.update(self._chain(int(leaf)))
        return sorted(group for group in groups if self.groups[group].valid)

    def of(self, ids: Ids, group: int) -> Members:
        """Find a group's units in an array.

        >>> from sinkhorn_rebasin.symmetry.labels.relations import Relations
        >>> from sinkhorn_rebasin.symmetry.solving.solver import solve
        >>> relations = Relations()
        >>> relations.relate(units := relations.new_units((3,)), relations.new_units((3,)))
        >>> Memberships(solve(relations)).of(units[[2, 0]], 0).unit.tolist()
        [2, 0]
        """
        if (id(ids), group) not in self._known:
            self._known[id(ids), group] = (ids, self._find(ids, group))
        return self._known[id(ids), group][1]

    def _find(self, ids: Ids, group: int) -> Members:
        """Find direct members and tuples of a group."""
        flat = ids.ravel()
        positions = self._positions(ids, group)
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

    def _positions(self, ids: Ids, group: int) -> Ids:
        """Find units of a group and its descendants.

        An array may hold hundreds of groups: it is sorted by them once.
        """
        if id(ids) not in self._by_leaf:
            flat = ids.ravel()
            leaf = np.where(flat >= 0, self._solution.group[flat], -1)
            order = np.argsort(leaf, kind="stable")
            self._by_leaf[id(ids)] = order, np.searchsorted(leaf[order], np.arange(len(self.groups) + 1))
        order, starts = self._by_leaf[id(ids)]
        parts = [order[starts[leaf] : starts[leaf + 1]] for leaf in self._below(group)]
        return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))

    def _below(self, group: int) -> Ids:
        """List a group and its descendants."""
        if group not in self._descendants:
            chains = [group in self._chain(leaf) for leaf in range(len(self.groups))]
            self._descendants[group] = np.flatnonzero(chains)
        return self._descendants[group]

    def _chain(self, group: int) -> list[int]:
        """List a group and its ancestors."""
        chain = []
        while group >= 0:
            chain.append(group)
            group = self.groups[group].parent
        return chain

    def _of_tuples(self, coordinates: Sequence[Ids], group: int) -> tuple[Ids, Ids]:
        """Find the group's unit around each tuple.

        Shapes:
            The unit of each tuple (k,), and the place that each coordinate gives (places, k).
        """
        unit = np.full(len(coordinates[0]), -1, dtype=np.int64)
        places = []
        for column in coordinates:
            outer, inside = self._own(column, group)
            outer = np.where(column >= 0, outer, -1)
            places.append(np.where(outer >= 0, inside, self._number(column)))
            places.append(self._solution.node_role[column].view(np.int64))
            disagree = (outer >= 0) & (unit >= 0) & (outer != unit)
            unit = np.where(
                disagree, self.groups[group].size * self.groups[group].blocks, np.maximum(outer, unit)
            )
        return unit, np.stack(places)

    def _number(self, units: Ids) -> Ids:
        """Number each unit in its group."""
        return np.where(self._solution.group[units] >= 0, self._solution.unit[units], units)

    def _own(self, units: Ids, group: int) -> tuple[Ids, Ids]:
        """Find the group's unit around each unit.

        The unit is -1 where there is none.
        """
        leaf, unit = self._solution.group[units], self._solution.unit[units]
        if bool((leaf == group).all()):
            return unit, np.zeros_like(unit)
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
