"""Boxes written into tensors, against the same writes on numbered elements."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.overwriting import overwritten
from sinkhorn_rebasin.symmetry.labels.relations import Relations


def numbered_labels(relations: Relations, tensor: Tensor) -> Labels:
    shape = tuple(tensor.shape)
    return Labels(shape, (Factor(tuple(range(tensor.dim())), relations.new_units(shape)),))


def units(relations: Relations, labels: Labels, first: int) -> np.ndarray:
    """The units of each factor at every position; those made on the way, from ``first`` on, traced back."""
    axes = tuple(range(len(labels.shape)))
    origin = np.arange(relations.count)
    for left, right, _ in relations.edges:
        made, former = np.maximum(left, right), np.minimum(left, right)
        origin[made[made >= first]] = origin[former[made >= first]]
    return np.stack(
        [np.where((ids := f.over(axes, labels.shape)) >= 0, origin[ids], -1) for f in labels.factors]
    )


@given(st.data())
def test_a_box_holds_what_was_written(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    box: list[slice | int] = []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        if data.draw(st.integers(0, 3)) == 3:
            box.append(start)
            continue
        stop = data.draw(st.integers(start + 1, length))
        box.append(slice(start, stop, data.draw(st.integers(1, 2))))
    assume(any(isinstance(part, slice) for part in box))
    base = torch.empty(shape)
    if data.draw(st.booleans()):
        base = base.permute(*reversed(range(base.dim()))).contiguous().permute(*reversed(range(base.dim())))
    relations = Relations()
    before = numbered_labels(relations, base)
    view = base[tuple(box)]
    source = numbered_labels(relations, view)
    count = relations.count
    expected = units(relations, before, count)[0]
    expected[tuple(box)] = units(relations, source, count)[0]
    found = overwritten(relations, base, before, view, source)
    assert found is not None
    held = units(relations, found, count)
    assert (held == expected).any(axis=0).all()
    assert np.isin(held, [-1, *expected.ravel()]).all()


def test_what_is_no_box_is_not_followed() -> None:
    relations = Relations()
    base = torch.empty(4, 4)
    for view in (base.diagonal(), base.view(2, 8)[:, ::3], base.flatten()[1:7].view(2, 3)):
        labels = numbered_labels(relations, base)
        assert overwritten(relations, base, labels, view, numbered_labels(relations, view)) is None
