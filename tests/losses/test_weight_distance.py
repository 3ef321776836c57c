from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import (
    FisherDistance,
    SinkhornRebasin,
    WeightDistance,
    diagonal_fisher,
    discover_symmetry,
)
from sinkhorn_rebasin.errors import LossError
from tests.rebasin.rebasin_problems import built, inputs, planted

REFERENCE = {"0.weight": [[1.0], [2.0]], "0.bias": [0.0, 1.0], "2.weight": [[1.0, 0.0]], "2.bias": [1.0]}
TARGET = {"0.weight": [[2.0], [1.0]], "0.bias": [1.0, 2.0], "2.weight": [[3.0, 0.0]], "2.bias": [-1.0]}


def tiny(swap: bool) -> SinkhornRebasin:
    """Two hidden units, weights one can count on fingers, hard permutations."""
    pair = [nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)) for _ in range(2)]
    for net, weights in zip(pair, (REFERENCE, TARGET), strict=True):
        net.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    order = torch.tensor([1, 0] if swap else [0, 1])
    return SinkhornRebasin(*pair, torch.randn(3, 1), start={"0": order}).eval()


# Target minus reference, unswapped: weight (1, -1), bias (1, 1), weight (2, 0), bias -2.
# Swapped: the target is (1, 2), (2, 1), (0, 3), -1; minus the reference (0, 0), (2, 0), (-1, 3), -2.
@pytest.mark.parametrize(
    ("kind", "swap", "expected"),
    [
        ("l2", False, (1 + 1 + 1 + 1 + 4 + 0 + 4) / 7),
        ("l1", False, (1 + 1 + 1 + 1 + 2 + 0 + 2) / 7),
        ("l2", True, (0 + 0 + 4 + 0 + 1 + 9 + 4) / 7),
        ("l1", True, (0 + 0 + 2 + 0 + 1 + 3 + 2) / 7),
        ("cosine", False, ((1 - 4 / 5) + (1 - 2 / 5**0.5) + 0 + 2) / 4),
        ("cosine", True, (0 + (1 - 1 / 5**0.5) + 1 + 2) / 4),
    ],
)
def test_values_counted_by_hand(kind: str, swap: bool, expected: float) -> None:
    assert float(WeightDistance(kind)(tiny(swap))) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["l2", "l1", "cosine"])
def test_a_planted_permutation_has_distance_zero_and_others_more(kind: str) -> None:
    reference, target, answer = planted()
    loss = WeightDistance(kind)  # type: ignore[arg-type]
    at_answer = SinkhornRebasin(reference, target, inputs("mlp"), start=answer).eval()
    at_identity = SinkhornRebasin(reference, target, inputs("mlp"), start="identity").eval()
    assert float(loss(at_answer)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(at_identity)) > 1e-3


def test_cosine_of_equal_networks_with_zero_biases_is_zero() -> None:
    reference, _, _ = planted()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    rebasin = SinkhornRebasin(reference, reference, inputs("mlp"), start="identity")
    assert float(WeightDistance("cosine")(rebasin.eval())) == pytest.approx(0.0, abs=1e-6)
    WeightDistance("cosine")(rebasin.train()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in rebasin.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["l2", "l1", "cosine"])
def test_buffers_do_not_count(kind: str) -> None:
    loss = WeightDistance(kind)  # type: ignore[arg-type]
    _, _, rebasin = built("residual")
    rebasin.eval()
    before = loss(rebasin)
    for name, buffer in rebasin.target.named_buffers():
        if "running" in name:
            buffer.add_(5)
    assert torch.equal(loss(rebasin), before)


@pytest.mark.parametrize("kind", ["l2", "l1", "cosine"])
def test_the_batch_is_ignored_and_the_type_kept(kind: str) -> None:
    loss = WeightDistance(kind)  # type: ignore[arg-type]
    _, _, rebasin = built()
    rebasin.double().eval()
    assert torch.equal(loss(rebasin), loss(rebasin, "anything"))
    assert loss(rebasin).dtype == torch.float64
    assert repr(loss) == f"WeightDistance('{kind}')"


def test_another_kind_is_an_error() -> None:
    with pytest.raises(LossError, match="'l3'"):
        WeightDistance("l3")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["l2", "l1", "cosine", "fisher"])
def test_gradients_of_wide_networks_in_half_precision_are_those_in_single(loss: str) -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 700)).half() for _ in range(2)]
    wide = [copy.deepcopy(net).float() for net in networks]
    spec, found = discover_symmetry(wide[0], torch.randn(2, 700)), []
    data = [torch.randn(4, 700)]
    for pair in (networks, wide):
        rebasin = SinkhornRebasin(*pair, spec=spec)
        measure = (
            FisherDistance(diagonal_fisher(wide[0], data, generator=torch.Generator().manual_seed(0)))
            if loss == "fisher"
            else WeightDistance(loss)  # type: ignore[arg-type]
        )
        measure(rebasin).backward()
        found.append(next(iter(rebasin.scores.values())).grad)
    assert found[0] is not None
    assert found[1] is not None
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4 * float(found[1].abs().max()))
