"""Which unit each position of a tensor belongs to, and how labels move, meet and shrink.

A tensor's label at one position is the tuple of the entries of all its factors there. A factor covers one or
several axes with an integer array: entries from 0 on are units, negative ones are fixed values. Along an axis
without factor the tensor is constant. Two positions with the same label hold the same value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, count_distinct, factorize, row_hashes

_NO_POSITIONS = 2**61 - 1


@dataclass(frozen=True)
class Factor:
    """One integer array over some axes (ascending) of a tensor."""

    axes: tuple[int, ...]
    ids: Ids

    def over(self, axes: tuple[int, ...], shape: Sequence[int]) -> Ids:
        """The ids repeated along further axes: an array over ``axes`` (ascending, a superset)."""
        view = self.ids
        for place, axis in enumerate(axes):
            if axis not in self.axes:
                view = np.expand_dims(view, place)
        return np.broadcast_to(view, [shape[axis] for axis in axes])

    @property
    def has_units(self) -> bool:
        return bool((self.ids >= 0).any())


@dataclass(frozen=True)
class Labels:
    """The factors of one tensor."""

    shape: tuple[int, ...]
    factors: tuple[Factor, ...] = ()

    def factors_covering(self, axes: Iterable[int]) -> list[Factor]:
        """Factors that cover at least one of these axes."""
        wanted = set(axes)
        return [factor for factor in self.factors if wanted & set(factor.axes)]

    def factors_outside(self, axes: Iterable[int]) -> list[Factor]:
        """Factors that cover none of these axes."""
        unwanted = set(axes)
        return [factor for factor in self.factors if not unwanted & set(factor.axes)]

    @property
    def units(self) -> Ids:
        """Every unit in any factor."""
        if not self.factors:
            return np.empty(0, dtype=np.int64)
        ids = np.concatenate([factor.ids.ravel() for factor in self.factors])
        return np.unique(ids[ids >= 0])

    @property
    def has_units(self) -> bool:
        return any(factor.has_units for factor in self.factors)

    def same_as(self, other: Labels) -> bool:
        """Whether two tensors carry the same factors."""
        ours, theirs = ({factor.axes: factor.ids for factor in each.factors} for each in (self, other))
        return ours.keys() == theirs.keys() and all(np.array_equal(ours[axes], theirs[axes]) for axes in ours)

    def renamed(self, shape: Sequence[int], new_axis: Sequence[int]) -> Labels:
        """Axis k becomes axis ``new_axis[k]``."""
        factors = tuple(_reordered(factor, [new_axis[a] for a in factor.axes]) for factor in self.factors)
        return Labels(tuple(shape), factors)

    def taken(self, axis: int, index: Ids) -> Labels:
        """Positions ``index`` along one axis, in that order."""
        shape = list(self.shape)
        shape[axis] = len(index)
        factors = [
            Factor(f.axes, f.ids.take(index, axis=f.axes.index(axis))) if axis in f.axes else f
            for f in self.factors
        ]
        return Labels(tuple(shape), tuple(factors))

    def broadcast(self, shape: Sequence[int]) -> Labels:
        """Expanded to a shape by the rules of broadcasting: new leading axes, length-1 axes repeated."""
        lead = len(shape) - len(self.shape)
        moved = self.renamed((1,) * lead + self.shape, range(lead, len(shape)))
        return Labels(tuple(shape), tuple(_broadcast(factor, shape) for factor in moved.factors))

    def reshaped(self, shape: Sequence[int]) -> Labels:
        """The same elements in row-major order under another shape."""
        runs = matching_axes(self.shape, shape)
        moved = []
        for factor in self.factors:
            touched = [run for run in runs if set(run[0]) & set(factor.axes)]
            old_axes = tuple(axis for olds, _ in touched for axis in olds)
            new_axes = tuple(axis for _, news in touched for axis in news)
            ids = factor.over(old_axes, self.shape).reshape([shape[axis] for axis in new_axes])
            moved.append(Factor(new_axes, ids))
        return simplified(shape, moved)


def fixed_factor(axis: int, length: int) -> Factor:
    """Every position along an axis is its own fixed value."""
    return Factor((axis,), -1 - np.arange(length, dtype=np.int64))


def fixed_labels(shape: Sequence[int]) -> Labels:
    """Every axis fixed: what a tensor carries of which nothing is known to move."""
    return Labels(tuple(shape), tuple(fixed_factor(a, n) for a, n in enumerate(shape) if n > 1))


def all_fixed(tensor: Tensor) -> Labels:
    """Fix every position of a tensor; nested ones have no shape to have positions in."""
    return Labels(()) if tensor.is_nested else fixed_labels(tensor.shape)


def simplified(shape: Sequence[int], factors: Iterable[Factor]) -> Labels:
    """Labels whose factors cover only axes along which they vary; a lone unit stays on its longest axis."""
    kept = []
    for factor in factors:
        axes, ids = list(factor.axes), factor.ids
        if not ids.size:
            continue
        for place in reversed(range(len(axes))):
            first = ids.take([0], axis=place)
            if bool((ids == first).all()):
                del axes[place]
                ids = first.squeeze(place)
        if not axes and factor.has_units and factor.axes:
            axes = [max(factor.axes, key=lambda axis: shape[axis])]
            ids = np.full(shape[axes[0]], int(ids), dtype=np.int64)
        if axes:
            kept.extend(_separated(Factor(tuple(axes), np.ascontiguousarray(ids))))
    return Labels(tuple(shape), _with_one_value(kept))


def _with_one_value(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Factors of which at most one gives fixed values along the same axis."""
    values = [factor for factor in factors if not factor.has_units]
    if len({factor.axes for factor in values}) == len(values):
        return tuple(factors)
    found = [factor for factor in factors if factor.has_units]
    for axes in dict.fromkeys(factor.axes for factor in values):
        along = [factor.ids for factor in values if factor.axes == axes]
        ids = along[0] if len(along) == 1 else -1 - factorize(*along).reshape(along[0].shape)
        found.append(Factor(axes, ids))
    return tuple(found)


def _separated(factor: Factor) -> list[Factor]:
    """Fixed values over several axes that say no more than fixed values along each of them."""
    if len(factor.axes) < 2 or factor.has_units:
        return [factor]
    rows = factor.ids.reshape(len(factor.ids), -1)
    first, rest = factorize(row_hashes(rows)), factorize(row_hashes(rows.T))
    if count_distinct(rows) < (int(first.max()) + 1) * (int(rest.max()) + 1):
        return [factor]
    others = Factor(factor.axes[1:], -1 - rest.reshape(factor.ids.shape[1:]))
    return [Factor(factor.axes[:1], -1 - first), *_separated(others)]


def _reordered(factor: Factor, axes: Sequence[int]) -> Factor:
    if all(before < after for before, after in pairwise(axes)):
        return Factor(tuple(axes), factor.ids)
    order = np.argsort(axes)
    return Factor(tuple(axes[i] for i in order), factor.ids.transpose(order))


def _broadcast(factor: Factor, shape: Sequence[int]) -> Factor:
    wanted = tuple(shape[axis] for axis in factor.axes)
    return factor if factor.ids.shape == wanted else Factor(factor.axes, np.broadcast_to(factor.ids, wanted))


def matching_axes(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Minimal runs of old and new axes that hold the same elements; axes of length 1 join a neighbour."""
    runs: list[tuple[list[int], list[int]]] = []
    # An axis without positions only matches another one.
    old, new = ([n or _NO_POSITIONS for n in shape] for shape in (old, new))
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news, size_old, size_new = [i], [j], old[i], new[j]
        while size_old != size_new:
            if size_old < size_new:
                i += 1
                olds.append(i)
                size_old *= old[i]
            else:
                j += 1
                news.append(j)
                size_new *= new[j]
        runs.append((olds, news))
        i, j = i + 1, j + 1
    if runs:
        runs[-1][0].extend(range(i, len(old)))
        runs[-1][1].extend(range(j, len(new)))
    return [(tuple(olds), tuple(news)) for olds, news in runs]
