from __future__ import annotations

import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.merging.partial.unit_maps import mapped
from sinkhorn_rebasin.permutations import Layout, Slot

MATRIX = torch.tensor([[1.0, 1.0], [0.0, 2.0], [3.0, 0.0]])


def test_gates_are_mapped_one_by_one() -> None:
    slot = Slot("h", "w", (0,), Layout(1, 2, outer=3, outer_stride=2))
    weight = torch.randn(6, 4)
    expected = np.concatenate([MATRIX.numpy() @ weight.numpy()[at : at + 2] for at in (0, 2, 4)])
    np.testing.assert_allclose(mapped(weight, [slot], {slot: MATRIX}, {slot: 1.0}), expected, rtol=1e-6)


def test_flattened_channels_keep_their_pixels_together() -> None:
    slot = Slot("c", "w", (1,), Layout(1, 2, stride=4, inner=4))
    weight = torch.randn(3, 8)
    expected = np.einsum("mc,ocp->omp", MATRIX.numpy(), weight.numpy().reshape(3, 2, 4)).reshape(3, 12)
    found = mapped(weight, [slot], {slot: MATRIX}, {slot: 1.0})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.is_contiguous()


def test_joined_groups_each_have_their_map_and_what_is_between_its_share() -> None:
    first, second = Slot("a", "w", (0,), Layout(1, 2, offset=1)), Slot("b", "w", (0,), Layout(1, 1, offset=3))
    weight = torch.tensor([10.0, 1.0, 2.0, 4.0, 20.0])
    found = mapped(
        weight,
        [second, first],
        {first: MATRIX, second: 2 * torch.ones(1, 1)},
        dict.fromkeys((first, second), 0.5),
    )
    assert found.tolist() == [5.0, 3.0, 4.0, 3.0, 8.0, 10.0]


def test_units_between_others_are_refused_by_name() -> None:
    slot = Slot("odd", "w", (0,), Layout(1, 2, stride=2))
    with pytest.raises(ArchitectureError, match=r"group 'odd' in whole runs along the axes .* of 'w'"):
        mapped(torch.ones(4), [slot], {slot: MATRIX}, {slot: 1.0})


def test_units_on_several_axes_keep_their_number_or_are_refused() -> None:
    slot = Slot("odd", "w", (0, 1), Layout(1, 4))
    weight, order = torch.randn(2, 2), torch.eye(4)[[3, 1, 0, 2]]
    found = mapped(weight, [slot], {slot: order}, {slot: 1.0})
    assert torch.equal(found.flatten(), weight.flatten()[[3, 1, 0, 2]])
    with pytest.raises(ArchitectureError, match="on several axes"):
        mapped(weight, [slot], {slot: torch.ones(3, 4)}, {slot: 1.0})
