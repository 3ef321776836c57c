"""Places inside of heads that no group moves, where positions may turn pairs of units."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.slots import parts_of

LARGEST = 512
"""Units of the largest head that is asked about."""

Table = NDArray[np.int64]
Tables = list[tuple[Slot, Table]]


def inner_groups(spec: PermutationSpec, heads: Group) -> list[tuple[Group, list[Slot]]] | None:
    """Return candidate groups inside of heads.

    Their units are what nothing moves; the likeliest come first.

    - All that stays in a slot is one head's units; query heads that share a key head lie side by side.
    - Queries and keys lie in one tensor, behind each other: it is cut where the places jump, else in halves.
    - All heads share one key head, which nothing permutes: its places are in no group.

    None where all inside of the heads is moved, so that there is nothing to ask.
    """
    inside = [group.name for group in spec.groups if heads.name in spec.ancestors(group.name)]
    moving = inside or [group.name for group in spec.groups if group.name != heads.name]
    slots = [
        part
        for slot in spec.slots_of(heads.name)
        if slot.tensor in spec.parameters
        for part in parts_of(slot)
        if part.layout.width > 1
    ]
    staying = [(slot, _staying(spec, slot, moving)) for slot in slots]
    whole = [(slot, table) for slot, tables in staying for table in tables]
    if not whole:
        return None
    ways: list[tuple[str | None, Tables]] = []
    if inside:
        cut = _cut(spec, [(slot, piece) for slot, table in whole for piece in _pieces(table)])
        ways = [(heads.name, whole), *([(heads.name, cut)] if len(cut) > len(whole) else [])]
    elif heads.blocks == 1 and heads.parent is None and any(not tables for _, tables in staying):
        side = [(slot, table.transpose(1, 0, 2).reshape(1, table.shape[1], -1)) for slot, table in whole]
        keys = _shared_keys(spec, whole)
        ways = [(None, [*side, *keys])] if keys else []
    else:
        return None
    name = f"{heads.name} rotary"
    return [_as_group(name, parent, tables) for parent, tables in ways if _comparable(heads, parent, tables)]


def _comparable(heads: Group, parent: str | None, tables: Tables) -> bool:
    """Tell whether places may be one group."""
    sizes = {table.shape[1] for _, table in tables}
    blocks = 1 if parent is None else heads.units
    fits = all(table.shape[0] == blocks for _, table in tables)
    return len(tables) > 1 and len(sizes) == 1 and 2 <= sizes.pop() <= LARGEST and fits


def _as_group(name: str, parent: str | None, tables: Tables) -> tuple[Group, list[Slot]]:
    blocks, size, _ = tables[0][1].shape
    slots = [replace(slot, group=name, layout=Layout.from_table(table)) for slot, table in tables]
    return Group(name, size, blocks, parent), slots


def _staying(spec: PermutationSpec, slot: Slot, moving: Collection[str]) -> list[Table]:
    """List positions that nothing moves.

    They are (heads, units, copies) inside of each head; none where heads differ.
    """
    table = slot.layout.table()
    table = table.reshape(-1, table.shape[2])
    covered = [units for units in _tables(spec, slot, moving) if np.isin(units, table).any()]
    single = np.concatenate([np.zeros(0, int), *(units.ravel() for units in covered if units.shape[2] == 1)])
    pieces, left = [], np.ones(table.shape[1], dtype=bool)
    for units in (units for units in covered if units.shape[2] > 1):
        if len(units) != len(table):
            return []
        taken = np.stack([np.isin(row, part) for row, part in zip(table, units, strict=True)])
        if not (taken == taken[0]).all() or taken[0].sum() != units[0].size or not left[taken[0]].all():
            return []
        left &= ~taken[0]
        pieces.append(units.transpose(0, 2, 1))
    if left.any():
        pieces.append(table[:, left, None])
    found = []
    for piece in pieces:
        moved = np.isin(piece, single)
        stays = ~moved.any((0, 2))
        if not moved[:, ~stays].all():
            return []
        if stays.any():
            found.append(piece[:, stays])
    return found


def _tables(spec: PermutationSpec, slot: Slot, groups: Collection[str]) -> Iterator[Table]:
    """Make tables of what groups move.

    They are of the axes of a slot.
    """
    for other in spec.slots_on(slot.tensor):
        if other.axes == slot.axes and other.group in groups:
            yield from (part.layout.table() for part in parts_of(other))


def _pieces(table: Table) -> list[Table]:
    """Cut a table into even pieces.

    In each, places lie at equal distances.
    """
    if table.shape[2] > 1 or table.shape[1] < 3:
        return [table]
    steps = np.diff(table[:, :, 0], axis=1)
    if not (steps == steps[0]).all():
        return [table]
    return np.split(table, np.flatnonzero(steps[0] != steps[0, 0]) + 1, axis=1)


def _cut(spec: PermutationSpec, tables: Tables) -> Tables:
    """Cut pieces to equal length.

    The shortest counts; a single piece of one matrix is cut in halves.
    """
    least = min(table.shape[1] for _, table in tables)
    if sum(len(spec.shapes[slot.tensor]) > 1 for slot, _ in tables) == 1 and least % 2 == 0:
        least //= 2
    return [
        (slot, part)
        for slot, table in tables
        for part in np.split(table, list(range(least, table.shape[1], least)), axis=1)
    ]


def _shared_keys(spec: PermutationSpec, queries: Tables) -> Tables:
    """List places that heads share.

    They are of the same layers, as many as a head has, and no group moves them.
    """
    size = queries[0][1].shape[1]
    layers = {_layer(slot.tensor) for slot, _ in queries}
    found = []
    for name in dict.fromkeys(names[0] for names in _tied_once(spec)):
        if _layer(name) in layers:
            moved = [s.layout.table().ravel() for s in spec.slots_on(name) if s.axes == (0,)]
            free = np.setdiff1d(np.arange(spec.shapes[name][0]), np.concatenate([np.zeros(0, int), *moved]))
            if len(free) == size:
                found.append((Slot("", name, (0,), Layout(1, size)), free.reshape(1, size, 1)))
    return found


def _tied_once(spec: PermutationSpec) -> Sequence[Sequence[str]]:
    tied = {name: names for names in spec.tied for name in names}
    return [tied.get(name, (name,)) for name in spec.parameters if spec.shapes[name]]


def _layer(tensor: str) -> str:
    """The module that holds a tensor's module."""
    return tensor.rpartition(".")[0].rpartition(".")[0]
