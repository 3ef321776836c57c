"""Carry labels through moves, reshapes and broadcasts.

The nouns of this package, each used in this sense only:

* *unit*: an integer from 0 on, one hidden unit as one tensor sees it.
* *fixed value*: a negative integer, a position that must stay where it is.
* *factor*: an array of units or fixed values over one or several axes of a tensor.
* *label*: the tuple of the entries of all factors at one position. Equal labels hold equal values.
* *block*: a unit that stands for a row of units that were summed together.
* *class*: the units that were made together, for one set of axes of one parameter.
* *kind*: the number of one event that related or marked units.
* *mark*: a value of one kind on a unit. A symmetry moves the unit to one with the same mark.
* *role*: the part that a unit plays inside a unit of a group.

Drawn for a hidden layer of two samples and three units::

    factor over axis 0      factor over axis 1      labels
          -1                   0   1   2            (-1,0) (-1,1) (-1,2)
          -2                                        (-2,0) (-2,1) (-2,2)

Along an axis without a factor the tensor is constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels.numbering import (
    Ids,
    count_distinct,
    distinct_values,
    factorize,
    row_hashes,
)

_NO_POSITIONS = 2**61 - 1


@dataclass(frozen=True)
class Factor:
    """Hold one integer array over ascending axes."""

    axes: tuple[int, ...]
    ids: Ids

    def over(self, axes: tuple[int, ...], shape: Sequence[int]) -> Ids:
        """Repeat the ids over ``axes``, an ascending superset.

        >>> Factor((1,), np.array([3, 4])).over((0, 1), (2, 2)).tolist()
        [[3, 4], [3, 4]]
        """
        if axes == self.axes:
            return self.ids
        view = self.ids
        for place, axis in enumerate(axes):
            if axis not in self.axes:
                view = np.expand_dims(view, place)
        return np.broadcast_to(view, [shape[axis] for axis in axes])

    @cached_property
    def has_units(self) -> bool:
        """Tell whether any entry is a unit."""
        return bool((self.ids >= 0).any())

    @cached_property
    def varies(self) -> bool:
        """Tell whether entries differ along each axis."""
        return all(
            not bool((self.ids == self.ids.take([0], axis=place)).all()) for place in range(self.ids.ndim)
        )


@dataclass(frozen=True)
class Labels:
    """Hold the shape and the factors of one tensor."""

    shape: tuple[int, ...]
    factors: tuple[Factor, ...] = ()

    def factors_covering(self, axes: Iterable[int]) -> list[Factor]:
        """List the factors on any of these axes."""
        wanted = set(axes)
        return [factor for factor in self.factors if wanted & set(factor.axes)]

    def factors_outside(self, axes: Iterable[int]) -> list[Factor]:
        """List the factors on none of these axes."""
        unwanted = set(axes)
        return [factor for factor in self.factors if not unwanted & set(factor.axes)]

    @cached_property
    def units(self) -> Ids:
        """List every unit in any factor once, ascending.

        >>> Labels((3,), (Factor((0,), np.array([5, -1, 2])),)).units.tolist()
        [2, 5]
        """
        if not self.factors:
            return np.empty(0, dtype=np.int64)
        ids = np.concatenate([factor.ids.ravel() for factor in self.factors])
        return distinct_values(ids[ids >= 0])

    @cached_property
    def has_units(self) -> bool:
        """Tell whether any factor has units."""
        return any(factor.has_units for factor in self.factors)

    def same_as(self, other: Labels) -> bool:
        """Tell whether two tensors carry the same factors."""
        ours, theirs = ({factor.axes: factor.ids for factor in each.factors} for each in (self, other))
        return ours.keys() == theirs.keys() and all(np.array_equal(ours[axes], theirs[axes]) for axes in ours)

    def renamed(self, shape: Sequence[int], new_axis: Sequence[int]) -> Labels:
        """Move axis k to axis ``new_axis[k]``."""
        factors = tuple(_reordered(factor, [new_axis[a] for a in factor.axes]) for factor in self.factors)
        return Labels(tuple(shape), factors)

    def taken(self, axis: int, index: Ids) -> Labels:
        """Take positions ``index`` of one axis, in that order.

        >>> Labels((3,), (Factor((0,), np.array([5, 6, 7])),)).taken(0, np.array([2, 0])).factors[0].ids.tolist()
        [7, 5]
        """
        shape = list(self.shape)
        shape[axis] = len(index)
        factors = [
            Factor(f.axes, f.ids.take(index, axis=f.axes.index(axis))) if axis in f.axes else f
            for f in self.factors
        ]
        return Labels(tuple(shape), tuple(factors))

    def broadcast(self, shape: Sequence[int]) -> Labels:
        """Expand to a shape by the rules of broadcasting."""
        if tuple(shape) == self.shape:
            return self
        lead = len(shape) - len(self.shape)
        moved = self.renamed((1,) * lead + self.shape, range(lead, len(shape)))
        return Labels(tuple(shape), tuple(_broadcast(factor, shape) for factor in moved.factors))

    def reshaped(self, shape: Sequence[int]) -> Labels:
        """Reshape the elements, row by row."""
        if tuple(shape) == self.shape:
            return simplified(shape, self.factors)
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
    """Make every position along an axis a fixed value.

    >>> fixed_factor(0, 3).ids.tolist()
    [-1, -2, -3]
    """
    return Factor((axis,), -1 - np.arange(length, dtype=np.int64))


def fixed_labels(shape: Sequence[int]) -> Labels:
    """Fix every position along every axis of a shape."""
    return Labels(tuple(shape), tuple(fixed_factor(a, n) for a, n in enumerate(shape) if n > 1))


def all_fixed(tensor: Tensor) -> Labels:
    """Fix every position of a tensor.

    Note:
        A nested tensor has no shape, and so gets no factors.
    """
    return Labels(()) if tensor.is_nested else fixed_labels(tensor.shape)


def simplified(shape: Sequence[int], factors: Iterable[Factor]) -> Labels:
    """Restrict factors to axes along which the factors vary.

    Note:
        - A factor with a single unit stays on its longest axis.
        - Fixed values along the same axes become one factor.

    >>> simplified((2, 2), [Factor((0, 1), np.array([[3, 4], [3, 4]]))]).factors[0].ids.tolist()
    [3, 4]
    """
    kept = []
    for factor in factors:
        axes, ids = list(factor.axes), factor.ids
        if not ids.size:
            continue
        if factor.varies and (len(axes) == 1 or factor.has_units):
            kept.append(factor if ids.flags.c_contiguous else Factor(factor.axes, np.ascontiguousarray(ids)))
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
    """Merge fixed values along the same axes into one factor."""
    values = [factor for factor in factors if not factor.has_units]
    if len({factor.axes for factor in values}) == len(values):
        return tuple(factors)
    merged = [factor for factor in factors if factor.has_units]
    for axes in dict.fromkeys(factor.axes for factor in values):
        along = [factor.ids for factor in values if factor.axes == axes]
        ids = along[0] if len(along) == 1 else -1 - factorize(*along).reshape(along[0].shape)
        merged.append(Factor(axes, ids))
    return tuple(merged)


def _separated(factor: Factor) -> list[Factor]:
    """Split fixed values that are independent along their axes."""
    if len(factor.axes) < 2 or factor.has_units:
        return [factor]
    rows = factor.ids.reshape(len(factor.ids), -1)
    first, rest = factorize(row_hashes(rows)), factorize(row_hashes(rows.T))
    if count_distinct(rows) < (int(first.max()) + 1) * (int(rest.max()) + 1):
        return [factor]
    others = Factor(factor.axes[1:], -1 - rest.reshape(factor.ids.shape[1:]))
    return [Factor(factor.axes[:1], -1 - first), *_separated(others)]


def _reordered(factor: Factor, axes: Sequence[int]) -> Factor:
    """Put a factor on new axes, ascending."""
    if all(before < after for before, after in pairwise(axes)):
        return Factor(tuple(axes), factor.ids)
    order = np.argsort(axes)
    return Factor(tuple(axes[i] for i in order), factor.ids.transpose(order))


def _broadcast(factor: Factor, shape: Sequence[int]) -> Factor:
    """Repeat a factor along axes of length 1."""
    wanted = tuple(shape[axis] for axis in factor.axes)
    return factor if factor.ids.shape == wanted else Factor(factor.axes, np.broadcast_to(factor.ids, wanted))


def matching_axes(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pair runs of axes with the same elements.

    Note:
        Axes of length 1 belong to the run beside them.

    >>> matching_axes((2, 6), (2, 3, 2))
    [((0,), (0,)), ((1,), (1, 2))]
    """
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
