"""From solved units to the slots of a spec: where the units of each group sit in each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sinkhorn_rebasin.permutations.layout import Layout, Positions
from sinkhorn_rebasin.symmetry.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.numbering import Ids
from sinkhorn_rebasin.symmetry.solution import Solution

_MOST_PLACES = 1 << 24


@dataclass(frozen=True)
class FoundSlot:
    """A slot of the group with this number in the solution."""

    group: int
    tensor: str
    axes: tuple[int, ...]
    layout: Layout


def find_slots(solution: Solution, parameter_labels: Mapping[str, Labels]) -> list[FoundSlot]:
    """The slots of every group; a group whose units do not fit a tensor regularly is marked invalid."""
    found = []
    for name, labels in parameter_labels.items():
        for group in _groups_on(solution, labels):
            for cluster in _clusters(solution, labels, group):
                slot = _slot(solution, name, labels.shape, cluster, group)
                if slot is None:
                    solution.groups[group].valid = False
                else:
                    found.append(slot)
    return [slot for slot in found if solution.groups[slot.group].valid]


def _groups_on(solution: Solution, labels: Labels) -> list[int]:
    """Groups, with their ancestors, that have units on a tensor."""
    found: set[int] = set()
    pairs = solution.pair[labels.units]
    units = np.concatenate([labels.units, pairs[pairs >= 0]])
    for group in np.unique(solution.group[units]):
        while group >= 0:
            found.add(int(group))
            group = solution.groups[group].parent
    return sorted(g for g in found if solution.groups[g].valid)


def _clusters(solution: Solution, labels: Labels, group: int) -> list[list[Factor]]:
    """The factors that hold units of a group, those that share an axis together."""
    clusters: list[list[Factor]] = []
    for factor in labels.factors:
        if not (_membership(solution, factor.ids, group)[0] >= 0).any():
            continue
        near = [any(set(f.axes) & set(factor.axes) for f in c) for c in clusters]
        together = [f for c, touches in zip(clusters, near, strict=True) if touches for f in c]
        clusters = [c for c, touches in zip(clusters, near, strict=True) if not touches]
        clusters.append([*together, factor])
    return clusters


def _membership(solution: Solution, ids: Ids, group: int) -> tuple[Ids, Ids]:
    """Unit of a group at every position (-1: none), and the place inside that unit that other groups give."""
    unit, inside = _own_membership(solution, ids, group)
    pair = np.where(ids[..., None] >= 0, solution.pair[ids], -1)
    paired = pair[..., 0] >= 0
    if not paired.any():
        return unit, inside
    (left, left_inside), (right, right_inside) = (
        _own_membership(solution, pair[..., side], group) for side in (0, 1)
    )
    # Where only one of the two is in the group, the other one's number among its like tells the places apart.
    left_place = np.where(left >= 0, left_inside, _place(solution, pair[..., 0]))
    right_place = np.where(right >= 0, right_inside, _place(solution, pair[..., 1]))
    place = left_place * _MOST_PLACES + right_place
    return np.where(paired, np.maximum(left, right), unit), np.where(paired, place, inside)


def _place(solution: Solution, units: Ids) -> Ids:
    """Number of a unit in its block."""
    groups = np.where(units >= 0, solution.group[units], -1)
    sizes = np.array([*(group.size for group in solution.groups), 1])[groups]
    return np.where(groups >= 0, solution.unit[units] % sizes, 0)


def _own_membership(solution: Solution, ids: Ids, group: int) -> tuple[Ids, Ids]:
    """The same for units that are no pairs."""
    known = ids >= 0
    leaf = np.where(known, solution.group[ids], -1)
    unit = np.where(known, solution.unit[ids], -1)
    inside = np.zeros_like(unit)
    scale = np.ones_like(unit)
    result = np.full_like(unit, -1)
    active = leaf >= 0
    while active.any():
        arrived = active & (leaf == group)
        result[arrived] = unit[arrived]
        active &= ~arrived
        sizes = np.array([g.size for g in solution.groups])[leaf]
        inside = np.where(active, inside + scale * (unit % sizes), inside)
        scale = np.where(active, scale * sizes, scale)
        unit = np.where(active, unit // sizes, unit)
        leaf = np.where(active, np.array([g.parent for g in solution.groups])[leaf], leaf)
        active &= leaf >= 0
    return result, inside


def _slot(
    solution: Solution, name: str, shape: Sequence[int], cluster: list[Factor], group: int
) -> FoundSlot | None:
    axes = tuple(sorted({axis for factor in cluster for axis in factor.axes}))
    table = _table(solution, cluster, axes, shape, group)
    if table is None:
        return None
    for factor in cluster:
        if factor.axes == axes:
            continue
        own = _table(solution, [factor], factor.axes, shape, group)
        if own is not None and np.array_equal(_widened(own, factor.axes, axes, shape), table):
            return FoundSlot(group, name, factor.axes, Layout.from_table(own))
    return FoundSlot(group, name, axes, Layout.from_table(table))


def _table(
    solution: Solution, factors: Sequence[Factor], axes: tuple[int, ...], shape: Sequence[int], group: int
) -> Positions | None:
    """Positions of every unit over some axes, (blocks, size, width); None when the units differ in width."""
    length = math.prod(shape[axis] for axis in axes)
    unit = np.full(length, -1, dtype=np.int64)
    keys: list[np.ndarray] = [np.arange(length)]
    for factor in reversed(factors):
        ids = factor.over(axes, shape).ravel()
        members, inside = _membership(solution, ids, group)
        if ((unit >= 0) & (members >= 0) & (unit != members)).any():
            return None
        unit = np.where(members >= 0, members, unit)
        keys.append(np.where(members >= 0, inside, 0))
        keys.append(np.where(members >= 0, solution.role[ids], np.uint64(0)))
    blocks, size = solution.groups[group].blocks, solution.groups[group].size
    positions = np.flatnonzero(unit >= 0)
    if len(positions) % (blocks * size):
        return None
    ordered = positions[np.lexsort([key[positions] for key in (*keys, unit)])]
    width = len(positions) // (blocks * size)
    if not np.array_equal(unit[ordered], np.repeat(np.arange(blocks * size), width)):
        return None
    return _normal_order(ordered.reshape(blocks, size, width))


def _normal_order(table: Positions) -> Positions:
    """The same correspondence with the first unit's positions ascending."""
    return table[:, :, np.argsort(table[0, 0])]


def _widened(
    table: Positions, own: tuple[int, ...], axes: tuple[int, ...], shape: Sequence[int]
) -> Positions:
    """A table over some axes as one over more axes, along which nothing moves."""
    grid = np.arange(math.prod(shape[axis] for axis in axes)).reshape([shape[axis] for axis in axes])
    places = [axes.index(axis) for axis in own]
    rows = np.moveaxis(grid, places, range(len(own))).reshape(math.prod(shape[a] for a in own), -1)
    return _normal_order(rows[table].reshape(*table.shape[:2], -1))
