"""Moments gathered batch by batch against those of all values at once."""

from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.activations.moments import Moments


@pytest.mark.parametrize("axis", [1, -1, 0, -2])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equal_those_of_all_values(axis: int, offset: float) -> None:
    values = offset + torch.randn(12, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments()
    whole = values.movedim(axis, 0).flatten(1)
    for part in values.movedim(axis, 0).split(3, dim=1):
        moments.update(part.movedim(0, axis), axis)
    torch.testing.assert_close(moments.mean, whole.mean(1))
    torch.testing.assert_close(moments.deviation(), whole.std(1, correction=0))
    assert moments.count == whole.shape[1]


def test_single_values_and_none() -> None:
    moments = Moments()
    moments.update(torch.zeros(0, 2), axis=-1)
    assert moments.count == moments.calls == 0
    for value in (1.0, 5.0):
        moments.update(torch.full((2,), value), axis=-1)
    assert moments.mean.tolist() == [3.0, 3.0]
    assert moments.deviation().tolist() == [2.0, 2.0]
    assert moments.count == 2


def test_half_precision_is_added_up_in_more() -> None:
    values = torch.full((5000, 1), 0.1, dtype=torch.bfloat16)
    moments = Moments()
    moments.update(values, axis=1)
    assert moments.mean.item() == pytest.approx(values[0, 0].item(), rel=1e-6)
