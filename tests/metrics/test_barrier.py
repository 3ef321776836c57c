"""Path metrics against numpy."""

import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import BarrierAUC, LossBarrier, MidpointAccuracy
from tests.metrics.tester import MetricTester

POINTS = 7


def path_batches() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(POINTS, generator=generator), size) for size in (3, 8, 1, 5, 16)]


def mean_above_chord(batches: list[tuple]) -> np.ndarray:
    losses = np.stack([batch[0].double().numpy() for batch in batches])
    mean = np.average(losses, axis=0, weights=[batch[1] for batch in batches])
    return np.maximum(mean - np.interp(np.linspace(0, 1, POINTS), [0, 1], [mean[0], mean[-1]]), 0)


class TestLossBarrier(MetricTester):
    def metric(self) -> LossBarrier:
        return LossBarrier(POINTS)

    def batches(self) -> list[tuple]:
        return path_batches()

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        return {"value": mean_above_chord(batches).max()}


class TestBarrierAUC(MetricTester):
    def metric(self) -> BarrierAUC:
        return BarrierAUC(POINTS)

    def batches(self) -> list[tuple]:
        return path_batches()

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        above = mean_above_chord(batches)
        return {"value": ((above[1:] + above[:-1]) / 2).sum() / (POINTS - 1)}


class TestMidpointAccuracy(MetricTester):
    def metric(self) -> MidpointAccuracy:
        return MidpointAccuracy()

    def batches(self) -> list[tuple]:
        generator = torch.Generator().manual_seed(0)
        return [
            (torch.randn(size, 3, generator=generator), torch.randint(3, (size,), generator=generator))
            for size in (3, 8, 1, 5)
        ]

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        hits = [
            int(np.argmax(row)) == int(label)
            for rows, labels in batches
            for row, label in zip(rows.numpy(), labels.numpy(), strict=True)
        ]
        return {"value": sum(hits) / len(hits)}


def test_uneven_positions() -> None:
    metric = LossBarrier([0.0, 0.25, 1.0])
    metric.update(torch.tensor([0.0, 2.0, 4.0]))
    assert metric.compute().item() == 1.0


def test_errors() -> None:
    with pytest.raises(DataError, match=r"losses at 7 positions.*but got \(3,\)"):
        LossBarrier(POINTS).update(torch.zeros(3))
    with pytest.raises(DataError, match="ascending"):
        BarrierAUC([0.0, 1.0, 0.5])
    with pytest.raises(DataError, match="integer labels"):
        MidpointAccuracy().update(torch.zeros(3, 2), torch.zeros(3))
