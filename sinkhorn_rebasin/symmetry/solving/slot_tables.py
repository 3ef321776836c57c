"""From solved units to the slots of a spec: where the units of each group sit in each tensor."""

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
    """A slot of the group with this number in the solution."""

    group: int
    tensor: str
    axes: tuple[int, ...]
    layout: Layout


def find_slots(solution: Solution, parameter_labels: Mapping[str, Labels]) -> list[FoundSlot]:
    """The slots of every group; a group whose units do not fit a tensor regularly is marked invalid."""
    memberships = Memberships(solution)
    found = []
    for name, labels in parameter_labels.items():
        for group in memberships.groups_on(labels):
            for cluster in _clusters(memberships, labels, group):
                slot = _slot(memberships, name, labels.shape, cluster, group)
                if slot is None:
                    solution.groups[group].valid = False
                else:
                    found.append(slot)
    return [slot for slot in found if solution.groups[slot.group].valid]


def _clusters(memberships: Memberships, labels: Labels, group: int) -> list[list[Factor]]:
    """The factors that hold units of a group, those that share an axis together."""
    holding = [f for f in labels.factors if len(memberships.of(f.ids, group).positions)]
    return overlapping(holding, range(len(labels.shape)))


def _slot(
    memberships: Memberships, name: str, shape: Sequence[int], cluster: list[Factor], group: int
) -> FoundSlot | None:
    axes = tuple(sorted({axis for factor in cluster for axis in factor.axes}))
    table = _table(memberships, cluster, axes, shape, group)
    if table is None:
        return None
    for factor in cluster:
        if factor.axes == axes:
            continue
        own = _table(memberships, [factor], factor.axes, shape, group)
        if own is not None and np.array_equal(_widened(own, factor.axes, axes, shape), table):
            return FoundSlot(group, name, factor.axes, Layout.from_table(own))
    return FoundSlot(group, name, axes, Layout.from_table(table))


def _table(
    memberships: Memberships,
    factors: Sequence[Factor],
    axes: tuple[int, ...],
    shape: Sequence[int],
    group: int,
) -> Positions | None:
    """Positions of every unit over some axes, (blocks, size, width); None when the units differ in width."""
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
