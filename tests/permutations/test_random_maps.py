"""Random elements are in their groups, and far from the identity."""

from __future__ import annotations

from dataclasses import replace

import torch

from sinkhorn_rebasin.permutations import Group, Layout, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.permutations.random_maps import random_map

SLOT = Slot("a", "w", (0,), Layout(1, 5))
ROTARY = ContinuousSymmetry(Group("a", 5), "rotary", ((SLOT, 1), (SLOT, -1)), pairs=((0, 2), (1, 3)))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def identity(size: int) -> torch.Tensor:
    return torch.eye(size, dtype=torch.float64)


def test_turns_are_orthogonal_and_keep_the_ones_where_they_must() -> None:
    stream = ContinuousSymmetry(Group("a", 30), "orthogonal", (), fixes_ones=True)
    turn, ones = random_map(stream, generator()), torch.ones(30, dtype=torch.float64)
    torch.testing.assert_close(turn @ turn.mT, identity(30))
    torch.testing.assert_close(turn @ ones, ones)
    free = random_map(replace(stream, fixes_ones=False), generator())
    torch.testing.assert_close(free @ free.mT, identity(30))
    assert float((free @ ones - ones).abs().max()) > 0.1


def test_a_few_units_are_mixed_and_the_others_stay() -> None:
    stream = ContinuousSymmetry(Group("a", 12, 2), "orthogonal", (), fixes_ones=True)
    turns = random_map(stream, generator(), most_mixed=4)
    torch.testing.assert_close(turns @ turns.mT, identity(12).expand(2, -1, -1))
    torch.testing.assert_close(turns.sum(-1), torch.ones(2, 12, dtype=torch.float64))
    staying = (turns == identity(12)).all(-1)
    assert staying.sum(-1).tolist() == [8, 8]
    assert not torch.equal(staying[0], staying[1])


def test_linear_maps_stretch_by_no_more_than_two_and_by_their_common_scale() -> None:
    inner = ContinuousSymmetry(Group("a", 4, 3), "linear", ())
    maps = random_map(inner, generator())
    values = torch.linalg.svdvals(maps)
    assert maps.shape == (3, 4, 4)
    assert float(values.max()) <= 2
    assert float(values.min()) >= 0.5
    torch.testing.assert_close(random_map(inner, generator(), log_scale=1.0), torch.e * maps)


def test_linear_maps_that_keep_the_ones_keep_them_on_both_sides() -> None:
    kept = random_map(ContinuousSymmetry(Group("a", 4), "linear", (), fixes_ones=True), generator())
    for matrix in (kept, torch.linalg.inv(kept).mT):
        torch.testing.assert_close(matrix.sum(1), torch.ones(4, dtype=torch.float64))
    assert float((kept @ kept.mT - identity(4)).abs().max()) > 0.1


def test_rotary_maps_multiply_pairs_by_complex_numbers_and_leave_the_others() -> None:
    matrix = random_map(ROTARY, generator())
    assert torch.equal(matrix[4], identity(5)[4])
    for first, second in ROTARY.pairs:
        alone = matrix[[first, second]][:, [first, second]]
        assert alone[0, 0] == alone[1, 1]
        assert alone[0, 1] == -alone[1, 0] != 0
    assert torch.count_nonzero(matrix) == 9
    assert float((matrix @ matrix.mT - identity(5)).abs().max()) > 0.1


def test_rotary_maps_that_nothing_scales_back_are_turns() -> None:
    turning = replace(ROTARY, exponents=((SLOT, 1),))
    matrix = random_map(turning, generator(), log_scale=1.0)
    torch.testing.assert_close(matrix @ matrix.mT, identity(5))
