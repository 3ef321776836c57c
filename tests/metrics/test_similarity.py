from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import nn
from torchmetrics import Metric

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import LinearCKA, linear_cka, unit_similarity, wreath_distance
from tests.front.pairs import samples, trained
from tests.metrics.tester import MetricTester


def by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    """CKA out of the samples' kernel matrices, which knows no units."""
    center = np.eye(len(x)) - 1 / len(x)
    ours, theirs = center @ x @ x.T @ center, center @ y @ y.T @ center
    return float(np.trace(ours @ theirs) / np.sqrt(np.trace(ours @ ours) * np.trace(theirs @ theirs)))


def draw(seed: int, count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator) + 1
    return x, torch.randn(count, 3, generator=generator) + x[:, :3].square()


class TestLinearCKA(MetricTester):
    def metric(self) -> Metric:
        return LinearCKA()

    def batches(self) -> list[tuple]:
        return [draw(seed, count) for seed, count in enumerate((4, 7, 5, 9))]

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        x, y = (torch.cat([batch[k] for batch in batches]).double().numpy() for k in (0, 1))
        return {"value": by_kernels(x, y)}


def test_the_function_is_that_of_kernels_and_knows_no_order_nor_turn() -> None:
    x, y = draw(0, 12)
    expected = by_kernels(x.double().numpy(), y.double().numpy())
    assert float(linear_cka(x, y)) == pytest.approx(expected, rel=1e-5)
    turned = torch.linalg.qr(torch.randn(4, 4))[0]
    assert float(linear_cka(3 * x @ turned - 2, y[:, [2, 0, 1]])) == pytest.approx(expected, rel=1e-4)
    assert float(linear_cka(x * torch.tensor([9.0, 1, 1, 1]), y)) != pytest.approx(expected, rel=1e-2)
    assert float(linear_cka(torch.ones(12, 2), y)) == 0


def test_matching_raises_the_correlation_of_units_and_leaves_the_cka() -> None:
    net, x = trained(0), samples()[0]
    spec = sr.discover_symmetry(net, x)
    order = sr.random_permutations(spec, generator=torch.Generator().manual_seed(0))
    moved = sr.permute_state(net.state_dict(), spec, order)
    batches = [x[:150], x[150:]]
    same, found = unit_similarity(net, net, spec, batches), unit_similarity(net, moved, spec, batches)
    for name in spec.names:
        assert same[name].correlation == pytest.approx(
            1.0, abs=0.13
        )  # units that are dead correlate with nothing
        assert found[name].cka == pytest.approx(1.0, rel=1e-5)
        assert found[name].correlation < same[name].correlation - 0.2
    aligned = sr.weight_matching(net, moved, spec)
    back = unit_similarity(net, sr.permute_state(moved, spec, aligned.permutations), spec, batches)
    for name in spec.names:
        assert back[name].correlation == pytest.approx(same[name].correlation, abs=1e-6)


def test_similarities_are_those_of_the_activations_of_a_layer() -> None:
    first, second, x = trained(0), trained(1), samples()[0]
    spec = sr.discover_symmetry(first, x)
    found = unit_similarity(first, second, spec, [x])["0"]
    with torch.no_grad():
        before, after = ([net[0](x), net[0](x).relu()] for net in (first, second))
    expected = [float(linear_cka(a, b)) for a, b in zip(before, after, strict=True)]
    assert any(found.cka == pytest.approx(value, rel=1e-5) for value in expected)


def test_the_wreath_distance_is_the_least_of_all_orders_and_scales() -> None:
    x, y = draw(3, 9)
    y = torch.cat([y, -x[:, :1]], dim=1)
    least = min(
        np.sqrt(
            sum(
                nnls(y[:, [j]].double().numpy(), x[:, i].double().numpy())[1] ** 2
                for i, j in enumerate(order)
            )
        )
        for order in itertools.permutations(range(4))
    )
    assert float(wreath_distance(x, y)) == pytest.approx(least / float(x.norm()), rel=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="same samples"):
        linear_cka(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(DataError, match="as many units"):
        wreath_distance(torch.ones(3, 2), torch.ones(3, 4))
    net = nn.Linear(2, 2)
    with pytest.raises(DataError, match="at least one batch"):
        unit_similarity(net, net, sr.discover_symmetry(trained(0), samples()[0]).__class__((), (), {}), [])
