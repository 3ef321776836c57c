"""Tell why an axis is frozen, and which line froze it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.permutations.slots import Frozen, Slot
from sinkhorn_rebasin.permutations.views.coverage import MEETS, MEETS_COMPUTED, UNUSED
from sinkhorn_rebasin.symmetry.labels.numbering import distinct_values, factorize
from sinkhorn_rebasin.symmetry.labels.origin import Origin
from sinkhorn_rebasin.symmetry.labels.relations import Ids, Relations
from sinkhorn_rebasin.symmetry.tracing.tape import Tape

_NEVER = int(np.iinfo(np.int64).max)
# Ranks: the number of a kind, and this much more for marks that several units share and for matchings.
_SHARED = 1 << 40
_APART = "its units are told apart by their relations"


def frozen_axes(named: StateLike, tape: Tape, slots: Sequence[Slot]) -> tuple[Frozen, ...]:
    """List axes in no slot, with what fixed each.

    1. A unit counts as marked when it is marked, or when it *follows* a marked unit. A unit follows another when a
       relation gives the other unit this one as its only partner.
    2. The earliest mark is named. Marks of single units come before marks that several units of a class share.
    3. Without any mark, relations tell the units apart. The first relation that is no matching is named.

    Note:
        Axes of length one are left out.
    """
    moved = {(slot.tensor, axis) for slot in slots for axis in slot.axes}
    canonical = {id(tensor): name for name, tensor in reversed(list(named.items()))}
    stays = [
        (name, axis)
        for name, tensor in named.items()
        for axis, length in enumerate(tensor.shape)
        if length > 1 and (name, axis) not in moved
    ]
    causes = _Causes.of(tape.labelling.relations, tape.flow.meets_fixed)
    frozen = []
    for name, axis in stays:
        labels = tape.labelling.parameter_labels.get(canonical[id(named[name])])
        if labels is None:
            frozen.append(Frozen(name, axis, UNUSED))
            continue
        ids = np.concatenate(
            [np.empty(0, dtype=np.int64), *(f.ids.ravel() for f in labels.factors_covering([axis]))]
        )
        frozen.append(causes.frozen(name, axis, ids[ids >= 0]))
    return tuple(frozen)


@dataclass(frozen=True)
class _Causes:
    """Rank the marks and relations of units."""

    relations: Relations
    marked: Ids
    related: Ids
    meets_fixed: Mapping[str, Origin | None]

    @classmethod
    def of(cls, relations: Relations, meets_fixed: Mapping[str, Origin | None]) -> _Causes:
        """Rank what fixes each unit of these relations."""
        following, ranked_relations = _followers(relations)
        matched, follows = _components(relations.count, following)
        rank = np.full(relations.count, _NEVER, dtype=np.int64)
        for units, shared, kind in _ranked(relations):
            np.minimum.at(rank, matched[units], shared * _SHARED + kind)
        _carry(rank, matched[follows[0]], matched[follows[1]])
        related = np.full(relations.count, _NEVER, dtype=np.int64)
        for units, kind in ranked_relations:
            np.minimum.at(related, matched[units], kind)
        return cls(relations, rank[matched], related[matched], meets_fixed)

    def frozen(self, tensor: str, axis: int, units: Ids) -> Frozen:
        """Name what fixed the first of these units."""
        rank, reason = int(self.marked[units].min(initial=_NEVER)), MEETS
        if rank == _NEVER:
            rank, reason = int(self.related[units].min(initial=_NEVER)), _APART
        kind = rank % _SHARED
        reason = self.relations.reasons.get(kind, reason)
        origin = self.relations.origins.get(kind)
        if reason == MEETS and tensor in self.meets_fixed:
            reason, origin = MEETS_COMPUTED, self.meets_fixed[tensor]
        if origin is None:
            return Frozen(tensor, axis, reason)
        return Frozen(tensor, axis, reason, origin.operation, origin.module, origin.source)


def _followers(relations: Relations) -> tuple[list[tuple[Ids, Ids, bool]], list[tuple[Ids, int]]]:
    """Pair leaders with followers, and rank all relations.

    The flag of a pair says whether each follows the other.
    """
    following, loose = [], []
    classes = relations.classes()
    for left, right, kind in relations.edges:
        onward, back = _distinct(left), _distinct(right)
        if onward:
            following.append((left, right, back))
        elif back:
            following.append((right, left, False))
        # A matching says something only where it leads back to its own class, which is known here if at once.
        again = bool((classes[left] == classes[right]).any()) and not np.array_equal(left, right)
        matching = onward and back and not again
        loose.append((np.concatenate([left, right]), kind + _SHARED * matching))
    return following, loose


def _components(count: int, following: Sequence[tuple[Ids, Ids, bool]]) -> tuple[Ids, tuple[Ids, Ids]]:
    """Merge units that follow each other; keep one-way pairs."""
    none = np.empty(0, dtype=np.int64)
    both = [[pair[side] for pair in following if pair[2]] for side in (0, 1)]
    one_way = [[pair[side] for pair in following if not pair[2]] for side in (0, 1)]
    source, target = (np.concatenate([none, *part]) for part in both)
    links = coo_array((np.ones(len(source), dtype=np.int8), (source, target)), shape=(count, count))
    matched = connected_components(links, directed=False)[1].astype(np.int64)
    return matched, (np.concatenate([none, *one_way[0]]), np.concatenate([none, *one_way[1]]))


def _ranked(relations: Relations) -> list[tuple[Ids, Ids, int]]:
    """List marked units, shared marks flagged."""
    classes, ranked = relations.classes(), []
    for units, values, kind in relations.marks:
        if _distinct(values):
            ranked.append((units, np.zeros(len(units), dtype=np.int64), kind))
            continue
        pairs = factorize(classes[units], values)
        ranked.append((units, (np.bincount(pairs)[pairs] > 1).astype(np.int64), kind))
    return ranked


def _carry(rank: Ids, leader: Ids, follower: Ids) -> None:
    """Hand ranks on to followers that have none.

    >>> rank = np.array([3, _NEVER, _NEVER])
    >>> _carry(rank, np.array([0, 1]), np.array([1, 2]))
    >>> rank.tolist()
    [3, 3, 3]
    """
    while True:
        reached = (rank[leader] < _NEVER) & (rank[follower] == _NEVER)
        if not reached.any():
            return
        np.minimum.at(rank, follower[reached], rank[leader[reached]])


def _distinct(ids: Ids) -> bool:
    """Tell whether no id occurs twice."""
    steps = np.diff(ids)
    return bool((steps > 0).all() or (steps < 0).all() or len(distinct_values(ids)) == len(ids))
