"""Metrics of the accuracy matrix against sums written out by hand."""

from __future__ import annotations

import pytest
import torch
from torchmetrics import Metric

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import (
    AccuracyMatrix,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from tests.metrics.tester import MetricTester

MATRIX = torch.tensor([[0.8, 0.2, 0.1], [0.9, 0.7, 0.3], [0.5, 0.6, 0.9]], dtype=torch.float64)
INITIAL = torch.tensor([0.1, 0.1, 0.2], dtype=torch.float64)
LOWER = MATRIX.masked_fill(torch.ones(3, 3).triu(1).bool(), torch.nan)


def test_a_matrix_worked_out_by_hand() -> None:
    assert average_accuracy(MATRIX).item() == pytest.approx((0.5 + 0.6 + 0.9) / 3)
    # The first task was at its best after the second.
    assert forgetting(MATRIX).item() == pytest.approx(((0.9 - 0.5) + (0.7 - 0.6)) / 2)
    assert backward_transfer(MATRIX).item() == pytest.approx(((0.5 - 0.8) + (0.6 - 0.7)) / 2)
    assert forward_transfer(MATRIX, INITIAL).item() == pytest.approx(((0.2 - 0.1) + (0.3 - 0.2)) / 2)


def test_what_lies_above_the_diagonal_is_not_forgotten() -> None:
    lucky = MATRIX.clone()
    lucky[0, 1] = 1.0
    assert forgetting(lucky) == forgetting(MATRIX)


def test_tasks_that_were_not_tested_before_they_came() -> None:
    for metric in (average_accuracy, forgetting, backward_transfer):
        assert metric(LOWER).item() == metric(MATRIX).item()
    with pytest.raises(DataError, match="right before each task"):
        forward_transfer(LOWER, INITIAL)


def test_one_task() -> None:
    one = torch.tensor([[0.75]])
    assert average_accuracy(one) == 0.75
    assert forgetting(one) == backward_transfer(one) == forward_transfer(one, torch.tensor([0.1])) == 0


def test_errors() -> None:
    for metric in (average_accuracy, forgetting, backward_transfer):
        with pytest.raises(DataError, match=r"shape \(tasks, tasks\) but got \(2, 3\)"):
            metric(torch.zeros(2, 3))
        with pytest.raises(DataError, match="got NaN"):
            metric(torch.full((2, 2), torch.nan))
    with pytest.raises(DataError, match="3 initial accuracies"):
        forward_transfer(MATRIX, INITIAL[:2])
    with pytest.raises(DataError, match="at least one task"):
        AccuracyMatrix(0)
    with pytest.raises(DataError, match="learned=3 and task=0"):
        AccuracyMatrix(2).update(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), 3, 0)
    with pytest.raises(DataError, match=r"labels of shape \(1,\)"):
        AccuracyMatrix(2).update(torch.zeros(1, 2), torch.zeros(2, dtype=torch.long), 0, 0)


def fill(metric: AccuracyMatrix) -> Metric:
    """Ten samples in every cell, as many right as the matrix says."""
    for learned, row in enumerate(torch.cat([INITIAL[None], MATRIX])):
        for task, share in enumerate(row):
            hits = round(10 * float(share))
            outputs = torch.eye(2)[torch.tensor([0] * hits + [1] * (10 - hits))]
            metric.update(outputs[:4], torch.zeros(4, dtype=torch.long), learned, task)
            metric.update(outputs[4:], torch.zeros(6, dtype=torch.long), learned, task)
    return metric


def test_classes_say_what_the_functions_say() -> None:
    torch.testing.assert_close(fill(AccuracyMatrix(3)).compute().double(), MATRIX, rtol=0, atol=1e-6)
    expected = {
        AverageAccuracy: average_accuracy(MATRIX),
        Forgetting: forgetting(MATRIX),
        BackwardTransfer: backward_transfer(MATRIX),
        ForwardTransfer: forward_transfer(MATRIX, INITIAL),
    }
    for metric, value in expected.items():
        assert fill(metric(3)).compute().item() == pytest.approx(value.item(), abs=1e-6)


def test_forgetting_a_row_counts_it_anew() -> None:
    metric = fill(AccuracyMatrix(3))
    assert not metric.compute().isnan().any()
    metric.forget(2)
    rows = metric.accuracies().isnan().all(dim=1)
    assert rows.tolist() == [False, False, True, False]
    assert torch.equal(metric.compute().isnan().all(dim=1), rows[1:])


class TestAverageAccuracyOfOneTask(MetricTester):
    def metric(self) -> AverageAccuracy:
        return AverageAccuracy(tasks=1)

    def batches(self) -> list[tuple]:
        generator = torch.Generator().manual_seed(0)
        return [
            (torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator), 1, 0)
            for n in (5, 2, 9, 4)
        ]

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        hits = [
            int(row.argmax()) == int(label) for b in batches for row, label in zip(b[0], b[1], strict=True)
        ]
        return {"value": sum(hits) / len(hits)}
