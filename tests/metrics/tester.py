"""The one test that every metric goes through."""

from __future__ import annotations

import copy
import pickle
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import Metric

from sinkhorn_rebasin.errors import DataError


def plain(value: Any) -> dict[str, float]:
    """A metric's value as named numbers."""
    if isinstance(value, dict):
        return {name: float(number) for name, number in value.items()}
    return {"value": float(value)}


class MetricTester(ABC):
    """Inherit, give the metric, its batches and a witness in numpy; every rule below is then checked."""

    @abstractmethod
    def metric(self) -> Metric:
        """A new metric."""

    @abstractmethod
    def batches(self) -> list[tuple]:
        """Arguments of successive updates, at least four of them, of unequal weight."""

    @abstractmethod
    def witness(self, batches: list[tuple]) -> dict[str, float]:
        """The value over all the batches at once, worked out without the package."""

    def updated(self, batches: list[tuple]) -> Metric:
        metric = self.metric()
        for batch in batches:
            metric.update(*batch)
        return metric

    def check(self, metric: Metric, batches: list[tuple]) -> None:
        value, expected = plain(metric.compute()), self.witness(batches)
        assert value.keys() == expected.keys()
        for name, number in expected.items():
            np.testing.assert_allclose(value[name], number, rtol=1e-5, atol=1e-6)

    def test_accumulates_like_all_at_once(self) -> None:
        for count in range(1, len(self.batches()) + 1):
            self.check(self.updated(self.batches()[:count]), self.batches()[:count])

    def test_witness_tells_batches_apart(self) -> None:
        values = [tuple(self.witness(self.batches()[:count]).values()) for count in range(1, 5)]
        assert len(set(values)) > 1

    def test_order_does_not_matter(self) -> None:
        self.check(self.updated(self.batches()[::-1]), self.batches())

    def test_forward_gives_the_batch_and_keeps_the_rest(self) -> None:
        metric = self.metric()
        for batch in self.batches():
            value, expected = plain(metric(*batch)), self.witness([batch])
            for name, number in expected.items():
                np.testing.assert_allclose(value[name], number, rtol=1e-5, atol=1e-6)
        self.check(metric, self.batches())

    def test_reset_forgets(self) -> None:
        metric = self.updated(self.batches())
        metric.reset()
        metric.update(*self.batches()[0])
        self.check(metric, self.batches()[:1])

    def test_no_update_is_an_error(self) -> None:
        with (
            pytest.warns(UserWarning, match="before the ``update``"),
            pytest.raises(DataError, match="see a"),
        ):
            self.metric().compute()

    def test_pickles_and_copies(self) -> None:
        metric = self.updated(self.batches()[:2])
        for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
            for batch in self.batches()[2:]:
                twin.update(*batch)
            self.check(twin, self.batches())
        self.check(metric, self.batches()[:2])

    def test_merging_two_halves(self) -> None:
        """What a distributed sum does: the states of two processes are added."""
        first, second = self.updated(self.batches()[:2]), self.updated(self.batches()[2:])
        assert all(reduction is not None for reduction in first._reductions.values())
        first.merge_state(second)
        self.check(first, self.batches())

    def test_state_dict_carries_the_state(self) -> None:
        metric, other = self.updated(self.batches()), self.metric()
        metric.persistent(True)
        other.persistent(True)
        other.load_state_dict(metric.state_dict())
        other.update(*self.batches()[0])
        self.check(other, [*self.batches(), self.batches()[0]])

    def test_moves_device_and_dtype(self) -> None:
        metric = self.metric().to("meta")
        held = [
            value for value in {**vars(metric), **metric._buffers}.values() if isinstance(value, torch.Tensor)
        ]
        assert len(held) >= len(metric._defaults)
        assert all(tensor.is_meta for tensor in held)
        double = self.metric().set_dtype(torch.float64)
        for batch in self.batches():
            double.update(*batch)
        self.check(double, self.batches())

    def test_arguments_are_left_alone(self) -> None:
        batches = self.batches()
        before = pickle.dumps(batches)
        self.updated(batches)
        assert pickle.dumps(batches) == before
