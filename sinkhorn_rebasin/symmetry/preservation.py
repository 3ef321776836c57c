"""A last check of what was solved: under the permutations claimed, every relation and mark comes out as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations.action import apply_indices
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.symmetry.extraction import FoundSlot
from sinkhorn_rebasin.symmetry.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.numbering import Hashes, Ids, combine, mix
from sinkhorn_rebasin.symmetry.relations import Relations
from sinkhorn_rebasin.symmetry.solution import Solution

# The first trial moves every unit to the next place in its block, the others draw a permutation for every block.
_TRIALS, _TRIALS_ON_TENSORS = 4, 2
# Per group, where each unit (block * size + i) goes inside its block.
_Moves = dict[int, Ids]


def preserving_slots(
    relations: Relations,
    solution: Solution,
    parameter_labels: Mapping[str, Labels],
    slots: Sequence[FoundSlot],
) -> list[FoundSlot]:
    """The slots of groups whose permutations preserve all relations and marks; other groups are made invalid.

    The solver claims as much; here its answer is tried, however it was found. A permutation moves traced units and,
    through the slots, positions of tensors: what lies at each position afterwards must be what the unit became.
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
    """All relations in three rows, or all marks with values in place of the second unit."""

    first: Ids
    second: Ids
    kind: Hashes

    @classmethod
    def of(cls, parts: Sequence[tuple[Ids, Ids, int]]) -> _Edges:
        none = np.empty(0, dtype=np.int64)
        lengths = [len(first) for first, _, _ in parts]
        kinds = mix(np.array([kind for _, _, kind in parts], dtype=np.int64))
        first, second = (np.concatenate([none, *(part[side] for part in parts)]) for side in (0, 1))
        return cls(first, second, np.repeat(kinds, lengths))

    def where(self, chosen: NDArray[np.bool_]) -> _Edges:
        return _Edges(self.first[chosen], self.second[chosen], self.kind[chosen])


@dataclass
class _Check:
    relations: Relations
    solution: Solution
    parameter_labels: Mapping[str, Labels]
    _edges: _Edges = field(init=False)
    _marks: _Edges = field(init=False)
    _offset: Ids = field(init=False)

    def __post_init__(self) -> None:
        self._edges = _Edges.of(self.relations.edges)
        self._marks = _Edges.of(self.relations.marks)
        groups, solution = self.solution.groups, self.solution
        lengths = np.array([group.size * group.blocks for group in groups], dtype=np.int64)
        grouped = solution.group >= 0
        np.maximum.at(lengths, solution.group[grouped], solution.unit[grouped] + 1)
        self._offset = np.cumsum([0, *lengths])

    def holds(self, slots: Sequence[FoundSlot]) -> bool:
        """Whether permutations of the groups of these slots, and of no other, preserve everything."""
        groups = sorted({slot.group for slot in slots})
        moving = self._moving(groups)
        before = self._addresses(moving, np.arange(self._offset[-1]))
        if len(np.unique(before[moving])) < int(moving.sum()):
            return False
        edges = self._edges.where(moving[self._edges.first] | moving[self._edges.second])
        marks = self._marks.where(moving[self._marks.first])
        expected = _fingerprint(before, moving, edges, marks)
        generator = np.random.default_rng(0)
        for trial in range(_TRIALS):
            moves = {group: self._moves(group, generator if trial else None) for group in groups}
            after = self._addresses(moving, self._images(moves))
            if _fingerprint(after, moving, edges, marks) != expected:
                return False
            if trial < _TRIALS_ON_TENSORS and not self._agree(slots, moves, moving, before, after):
                return False
        return True

    def _moving(self, groups: Sequence[int]) -> NDArray[np.bool_]:
        """Which units lie in one of these groups, or have a coordinate that does."""
        carried = np.zeros(len(self.solution.groups) + 1, dtype=bool)
        carried[groups] = True
        for number, group in enumerate(self.solution.groups):
            carried[number] |= group.parent >= 0 and carried[group.parent]
        moving: NDArray[np.bool_] = carried[self.solution.group]
        own = moving.copy()
        for column in self.solution.coordinates.T:
            moving |= (column >= 0) & own[column]
        return moving

    def _moves(self, group: int, generator: np.random.Generator | None) -> Ids:
        size, blocks = self.solution.groups[group].size, self.solution.groups[group].blocks
        places = np.tile(np.arange(size), (blocks, 1))
        return np.roll(places, -1, axis=1) if generator is None else generator.permuted(places, axis=1)

    def _images(self, moves: _Moves) -> Ids:
        """The unit that each unit becomes, all groups' units in one row."""
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

    def _addresses(self, moving: NDArray[np.bool_], images: Ids) -> Hashes:
        """A hash that tells what each unit becomes: its place in its group and its role, or its coordinates."""
        solution = self.solution
        found = mix(np.arange(len(moving)))
        own = moving & (solution.group >= 0)
        found[own] = combine(
            solution.role[own], images[self._offset[solution.group[own]] + solution.unit[own]]
        )
        tuples = moving & (solution.group < 0)
        if tuples.any():
            together = solution.role[tuples]
            for column in solution.coordinates[tuples].T:
                together = combine(together, np.where(column >= 0, found[column], np.uint64(0)))
            found[tuples] = together
        return found

    def _agree(
        self,
        slots: Sequence[FoundSlot],
        moves: _Moves,
        moving: NDArray[np.bool_],
        before: Hashes,
        after: Hashes,
    ) -> bool:
        """Whether the slots carry to every position of a tensor what the unit there becomes."""
        on: dict[str, list[FoundSlot]] = {}
        for slot in sorted(slots, key=lambda slot: -slot.group):  # parents have lower numbers, and act later
            on.setdefault(slot.tensor, []).append(slot)
        for name, labels in self.parameter_labels.items():
            for factor in labels.factors:
                if name not in on and not moving[factor.ids[factor.ids >= 0]].any():
                    continue
                old, new = _moved(factor, labels.shape, on.get(name, []), moves)
                units = old >= 0
                if not np.array_equal(units, new >= 0) or not np.array_equal(old[~units], new[~units]):
                    return False
                if not np.array_equal(before[new[units]], after[old[units]]):
                    return False
        return True


def _fingerprint(
    addresses: Hashes, moving: NDArray[np.bool_], edges: _Edges, marks: _Edges
) -> tuple[int, ...]:
    """Hashes of the set of moving units, of their relations and of their marks, whatever the order."""
    pairs = mix(addresses[edges.first] * np.uint64(3) + addresses[edges.second] + edges.kind)
    marked = mix(addresses[marks.first] * np.uint64(3) + mix(marks.second) + marks.kind)
    return tuple(int(each.sum(dtype=np.uint64)) for each in (mix(addresses[moving]), pairs, marked))


def _moved(
    factor: Factor, shape: Sequence[int], slots: Sequence[FoundSlot], moves: _Moves
) -> tuple[Ids, Ids]:
    """The entries of a factor, over its axes and those that move with them, before and after slots act."""
    near = [slot for slot in slots if set(slot.axes) & set(factor.axes)]
    axes = tuple(sorted({*factor.axes}.union(*(slot.axes for slot in near))))
    old = factor.over(axes, shape).copy()
    new = torch.from_numpy(old)
    for slot in near:
        placed = Slot("", slot.tensor, tuple(axes.index(axis) for axis in slot.axes), slot.layout)
        new = apply_indices(new, placed, torch.from_numpy(moves[slot.group]).squeeze(0))
    return old, new.numpy()
