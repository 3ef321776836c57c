from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkhorn_rebasin.permutations import Layout

REGULAR = [
    Layout(1, 4),
    Layout(1, 4, offset=2, stride=3),
    Layout(1, 3, stride=4, inner=4),
    Layout(1, 3, stride=1, outer=2, outer_stride=3),
    Layout(1, 3, offset=1, stride=2, outer=3, outer_stride=7, inner=2),
    Layout(2, 3, block_stride=3),
    Layout(2, 3, offset=4, block_stride=20, stride=2, outer=2, outer_stride=10, inner=2),
    Layout(1, 1),
    Layout(1, 4, stride=-1, offset=3),
]


def by_loops(layout: Layout) -> list[list[list[int]]]:
    return [
        [
            [
                layout.offset + b * layout.block_stride + i * layout.stride + o * layout.outer_stride + k
                for o in range(layout.outer)
                for k in range(layout.inner)
            ]
            for i in range(layout.size)
        ]
        for b in range(layout.blocks)
    ]


@pytest.mark.parametrize("layout", REGULAR, ids=str)
def test_the_table_is_the_affine_map(layout: Layout) -> None:
    assert layout.table().tolist() == by_loops(layout)
    assert layout.table().shape == (layout.blocks, layout.size, layout.width)


@pytest.mark.parametrize("layout", REGULAR, ids=str)
def test_regular_tables_are_stored_compactly(layout: Layout) -> None:
    found = Layout.from_table(layout.table())
    assert found.listed is None
    assert np.array_equal(found.table(), layout.table())


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_table_survives(blocks: int, size: int, width: int, random) -> None:
    positions = random.sample(range(100), blocks * size * width)
    table = np.array(positions).reshape(blocks, size, width)
    layout = Layout.from_table(table)
    assert np.array_equal(layout.table(), table)
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@pytest.mark.parametrize("layout", REGULAR, ids=str)
def test_json_round_trip(layout: Layout) -> None:
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_whole_axes_are_recognised() -> None:
    for layout in REGULAR:
        for length in range(1, 30):
            whole = np.array_equal(layout.table().ravel(), np.arange(length))
            assert layout.is_whole_axis(length) is (
                (whole and layout.outer == 1) or (whole and layout.width == 1)
            )
