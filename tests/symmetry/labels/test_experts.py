"""Experts that the example's rows do not all go to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from sinkhorn_rebasin.symmetry.labels.experts import BatchedParameters
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Ids, Labels
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from tests.zoo.case import Function
from tests.zoo.experts import EXPERTS, HIDDEN, WIDTH, by_groups, experts


def grouped() -> Function:
    net = experts(by_groups)
    del net.gate
    return net


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_every_expert_is_met_whatever_the_example_went_to(rows: int) -> None:
    torch.manual_seed(0)
    net, inputs = grouped(), torch.randn(rows, 3)
    spec = discover_symmetry(net, inputs)
    hidden = [group for group in spec.groups if group.size == HIDDEN]
    assert {slot.tensor for group in hidden for slot in spec.slots_of(group.name)} <= {"up", "down"}
    # Forty other rows go to all experts: what was claimed of fewer must hold for them.
    assert verify_symmetry(net, spec, 2 * torch.randn(40, 3)) < 1e-12


def test_with_rows_for_all_experts_everything_may_move() -> None:
    torch.manual_seed(0)
    spec = discover_symmetry(grouped(), 2 * torch.randn(40, 3))
    sizes = sorted((group.size, group.blocks) for group in spec.groups)
    assert sizes == sorted([(WIDTH, 1), (WIDTH, 1), *[(HIDDEN, 1)] * EXPERTS])


def test_what_no_input_reaches_stays_with_its_inputs() -> None:
    net = Function(
        lambda net, x: net.last(
            torch.nn.functional.grouped_mm(
                net.first(x), net.up, offs=(x[:1, 0] * 0 + len(x)).int().expand(2).contiguous()
            )
        ),
        first=nn.Linear(3, 8),
        up=nn.Parameter(torch.randn(2, 8, 8)),
        last=nn.Linear(8, 2),
    )
    spec = discover_symmetry(net, torch.randn(8, 3))
    assert "first.weight" not in {slot.tensor for slot in spec.slots}
    assert any("experts" in item.reason for item in spec.frozen)


def test_tensors_without_elements_put_nothing_beside_each_other() -> None:
    relations = Relations()
    grid = Labels((0, 2, 3), (Factor((1, 2), relations.new_units((2, 3))), Factor((0, 1), no_units((0, 2)))))
    rows = Labels((0, 2, 1), (Factor((0,), no_units((0,))), Factor((1,), relations.new_units((2,)))))
    for parts in ([grid, rows], [rows, grid]):
        BatchedParameters({}).record_meeting(relations, parts)


def no_units(shape: tuple[int, ...]) -> Ids:
    return np.zeros(shape, dtype=np.int64)
