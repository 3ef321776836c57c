"""Find where the units of each group lie in each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sinkhorn_rebasin.permutations.layout import Layout, Positions
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.summing import overlapping
from sinkhorn_rebasin.symmetry.solving.membership import Memberships
from sinkhorn_rebasin.symmetry.solving.solver import Solution


@dataclass(frozen=True)
class FoundSlot:
    """Hold a slot of a group, by number."""

    group: int
    tensor: str
    axes: tuple[int, ...]
    layout: Layout


def find_slots(solution: Solution, parameter_labels: Mapping[str, Labels]) -> list[FoundSlot]:
    """List the slots of every group on every tensor.

    Note:
        A group whose units do not fit a tensor regularly is made invalid.
    """
    memberships = Memberships(solution)
    slots = []
    for name, labels in parameter_labels.items():
        for group in memberships.groups_on(labels):
            for cluster in _clusters(memberships, labels, group):
                slot = _slot(memberships, name, labels.shape, cluster, group)
                if slot is None:
                    solution.groups[group].valid = False
                else:
                    slots.append(slot)
    return [slot for slot in slots if solution.groups[slot.group].valid]


def _clusters(memberships: Memberships, labels: Labels, group: int) -> list[list[Factor]]:
    """Cluster a group's factors by axes."""
    holding = [f for f in labels.factors if len(memberships.of(f.ids, group).positions)]
    return overlapping(holding, range(len(labels.shape)))


def _slot(
    memberships: Memberships, name: str, shape: Sequence[int], cluster: list[Factor], group: int
) -> FoundSlot | None:
    """Find a group's slot on some factors."""
    axes = tuple(sorted({axis for factor in cluster for axis in factor.axes}))
    table = _table(memberships, cluster, axes, shape, group)
    if table is None:
        return None
    for factor in cluster:
        if factor.axes == axes:
            continue
        narrow = _table(memberships, [factor], factor.axes, shape, group)
        if narrow is not None and np.array_equal(_widened(narrow, factor.axes, axes, shape), table):
            return FoundSlot(group, name, factor.axes, Layout.from_table(narrow))
    return FoundSlot(group, name, axes, Layout.from_table(table))


def _table(
    memberships: Memberships,
    factors: Sequence[Factor],
    axes: tuple[int, ...],
    shape: Sequence[int],
    group: int,
) -> Positions | None:
    """List positions by unit, (blocks, size, width).

    None when the units differ in width.
    """
    if len(factors) == 1:
        members = memberships.of(factors[0].ids, group)
        positions, unit, keys = members.positions, members.unit, [*members.inside, members.role]
    else:
        wide = [memberships.of(factor.over(axes, shape), group).spread() for factor in factors]
        unit = np.full(math.prod(shape[axis] for axis in axes), -1, dtype=np.int64)
        keys = []
        for members in reversed(wide):
            if ((unit >= 0) & (members.unit >= 0) & (unit != members.unit)).any():
                return None
            unit = np.where(members.unit >= 0, members.unit, unit)
            keys.extend([*members.inside, members.role])
        positions = np.flatnonzero(unit >= 0)
        unit, keys = unit[positions], [key[positions] for key in keys]
    blocks, size = memberships.groups[group].blocks, memberships.groups[group].size
    width, rest = divmod(len(positions), blocks * size)
    if rest:
        return None
    order = np.lexsort([positions, *keys, unit])
    if not np.array_equal(unit[order], np.repeat(np.arange(blocks * size), width)):
        return None
    return _normal_order(positions[order].reshape(blocks, size, width))


def _normal_order(table: Positions) -> Positions:
    """Sort the columns by the first unit's positions.

    >>> _normal_order(np.array([[[3, 1], [2, 0]]])).tolist()
    [[[1, 3], [0, 2]]]
    """
    return table[:, :, np.argsort(table[0, 0])]


def _widened(
    table: Positions, old_axes: tuple[int, ...], axes: tuple[int, ...], shape: Sequence[int]
) -> Positions:
    """Extend a table to more axes.

    >>> _widened(np.array([[[0], [1]]]), (0,), (0, 1), (2, 2)).tolist()
    [[[0, 1], [2, 3]]]
    """
    grid = np.arange(math.prod(shape[axis] for axis in axes)).reshape([shape[axis] for axis in axes])
    places = [axes.index(axis) for axis in old_axes]
    rows = np.moveaxis(grid, places, range(len(old_axes))).reshape(math.prod(shape[a] for a in old_axes), -1)
    return _normal_order(rows[table].reshape(*table.shape[:2], -1))
