"""Check that claimed permutations preserve every relation and mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Hashes, Ids, combine, mix
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.slot_moves import Moves, SlotMoves
from sinkhorn_rebasin.symmetry.solving.slot_tables import FoundSlot
from sinkhorn_rebasin.symmetry.solving.solver import Solution

# The first trial moves every unit to the next place in its block, the others draw a permutation for every block. What
# is wrong passes where a permutation that was drawn happens to be right: one more is drawn where groups are small.
_TRIALS, _SMALL = 2, 4


def preserving_slots(
    relations: Relations,
    solution: Solution,
    parameter_labels: Mapping[str, Labels],
    slots: Sequence[FoundSlot],
) -> list[FoundSlot]:
    """Keep slots of groups that preserve relations and marks.

    A permutation moves traced units and, through the slots, positions of tensors. Each position must then hold what
    its unit became.

    Note:
        Groups that fail are made invalid.
    """
    check = _Check(relations, solution, parameter_labels)
    kept = list(slots)
    if check.holds(kept):
        return kept
    for group in sorted({slot.group for slot in kept}):
        if not check.holds([slot for slot in kept if slot.group == group]):
            solution.groups[group].valid = False
    kept = [slot for slot in kept if solution.groups[slot.group].valid]
    if check.holds(kept):
        return kept
    # Symmetries make up a symmetry together: where these do not, each was found to hold by chance.
    for slot in kept:
        solution.groups[slot.group].valid = False
    return []


@dataclass(frozen=True)
class _Edges:
    """Hold relations, or marks with values as second units."""

    first: Ids
    second: Ids
    kind: Hashes

    @classmethod
    def of(cls, parts: Sequence[tuple[Ids, Ids, int]]) -> _Edges:
        """Concatenate relations or marks of all kinds."""
        none = np.empty(0, dtype=np.int64)
        lengths = [len(first) for first, _, _ in parts]
        kinds = mix(np.array([kind for _, _, kind in parts], dtype=np.int64))
        first, second = (np.concatenate([none, *(part[side] for part in parts)]) for side in (0, 1))
        return cls(first, second, np.repeat(kinds, lengths))

    def where(self, selected: NDArray[np.bool_]) -> _Edges:
        """Select some of the edges."""
        return _Edges(self.first[selected], self.second[selected], self.kind[selected])


@dataclass
class _Check:
    """Try permutations of groups on units and on slots."""

    relations: Relations
    solution: Solution
    parameter_labels: Mapping[str, Labels]
    _edges: _Edges = field(init=False)
    _marks: _Edges = field(init=False)
    _offset: Ids = field(init=False)

    def __post_init__(self) -> None:
        self._edges = _Edges.of(self.relations.edges)
        marks = _Edges.of(self.relations.marks)
        self._marks = replace(marks, kind=combine(marks.kind, marks.second))
        groups, solution = self.solution.groups, self.solution
        lengths = np.array([group.size * group.blocks for group in groups], dtype=np.int64)
        grouped = solution.group >= 0
        np.maximum.at(lengths, solution.group[grouped], solution.unit[grouped] + 1)
        self._offset = np.cumsum([0, *lengths])

    def holds(self, slots: Sequence[FoundSlot]) -> bool:
        """Tell whether the groups of these slots preserve everything."""
        groups = sorted({slot.group for slot in slots})
        moving = self._moving(groups)
        edges = self._edges.where(moving[self._edges.first] | moving[self._edges.second])
        marks = self._marks.where(moving[self._marks.first])
        addresses = _Addresses.of(self.solution, self._offset, moving)
        before = addresses.under(np.arange(self._offset[-1]))
        ordered = np.sort(before[moving])
        if (ordered[1:] == ordered[:-1]).any():
            return False
        expected = _fingerprint(before, moving, edges, marks)
        on_tensors = SlotMoves(self.parameter_labels, slots, moving)
        generator = np.random.default_rng(0)
        small = any(self.solution.groups[group].size < _SMALL for group in groups)
        for trial in range(_TRIALS + small):
            moves = {group: self._moves(group, generator if trial else None) for group in groups}
            after = addresses.under(self._images(moves))
            if _fingerprint(after, moving, edges, marks) != expected:
                return False
            if trial < _TRIALS and not on_tensors.agree(moves, before, after):
                return False
        return True

    def _moving(self, groups: Sequence[int]) -> NDArray[np.bool_]:
        """Find units in these groups, coordinates included, (units,)."""
        carried = np.zeros(len(self.solution.groups) + 1, dtype=bool)
        carried[groups] = True
        for number, group in enumerate(self.solution.groups):
            carried[number] |= group.parent >= 0 and carried[group.parent]
        moving: NDArray[np.bool_] = carried[self.solution.group]
        grouped = moving.copy()
        for column in self.solution.coordinates.T:
            moving |= (column >= 0) & grouped[column]
        return moving

    def _moves(self, group: int, generator: np.random.Generator | None) -> Ids:
        """Permute every block, or shift by one."""
        size, blocks = self.solution.groups[group].size, self.solution.groups[group].blocks
        places = np.tile(np.arange(size), (blocks, 1))
        return np.roll(places, -1, axis=1) if generator is None else generator.permuted(places, axis=1)

    def _images(self, moves: Moves) -> Ids:
        """Map each unit of each group to its image."""
        images = np.arange(self._offset[-1])
        for number, group in enumerate(self.solution.groups):
            row = slice(self._offset[number], self._offset[number] + group.size * group.blocks)
            blocks = np.arange(group.blocks)
            if group.parent >= 0:
                start = self._offset[group.parent]
                blocks = images[start : start + group.blocks] - start
            places = moves.get(number)
            if places is not None or group.parent >= 0:
                inside = np.arange(group.size) if places is None else places[blocks]
                images[row] = self._offset[number] + (blocks[:, None] * group.size + inside).ravel()
        return images


@dataclass(frozen=True)
class _Addresses:
    """Hash each unit's place and role."""

    fixed: Hashes
    own: Ids
    place: Ids
    role: Hashes
    tuples: Ids
    tuple_role: Hashes
    columns: list[tuple[Hashes, Ids, Ids, Hashes]]

    @classmethod
    def of(cls, solution: Solution, offset: Ids, moving: NDArray[np.bool_]) -> _Addresses:
        """Collect the addresses of a solution's units."""
        fixed = mix(np.arange(len(moving)))
        place = offset[solution.group] + solution.unit
        own, tuples = (
            np.flatnonzero(moving & (solution.group >= 0)),
            np.flatnonzero(moving & (solution.group < 0)),
        )
        columns = []
        for column in solution.coordinates[tuples].T:
            move = np.flatnonzero((column >= 0) & moving[column])
            still = np.where(column >= 0, fixed[column], np.uint64(0))
            columns.append((still, move, place[column[move]], solution.node_role[column[move]]))
        return cls(fixed, own, place[own], solution.role[own], tuples, solution.role[tuples], columns)

    def under(self, images: Ids) -> Hashes:
        """Hash what every unit becomes.

        ``images`` holds where each unit of each group goes.
        """
        found, places = self.fixed.copy(), mix(images)
        found[self.own] = mix(self.role * np.uint64(3) + places[self.place])
        together = self.tuple_role
        for still, move, place, role in self.columns:
            address = still.copy()
            address[move] = mix(role * np.uint64(3) + places[place])
            together = combine(together, address)
        found[self.tuples] = together
        return found


def _fingerprint(
    addresses: Hashes, moving: NDArray[np.bool_], edges: _Edges, marks: _Edges
) -> tuple[int, ...]:
    """Hash moving units, relations and marks."""
    pairs = mix(addresses[edges.first] * np.uint64(3) + addresses[edges.second] + edges.kind)
    marked = mix(addresses[marks.first] + marks.kind)
    return tuple(int(each.sum(dtype=np.uint64)) for each in (addresses[moving], pairs, marked))
