from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.special import comb
from torch import Tensor, nn

from sinkhorn_rebasin.connectivity import BezierPath, LearnedCurve, LinearPath, PolygonPath, evaluate_path
from sinkhorn_rebasin.errors import ArchitectureError


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).eval()


@pytest.mark.parametrize("bends", [1, 2, 4])
def test_a_bezier_curve_is_its_bernstein_polynomial(bends: int) -> None:
    nets = [net(seed).double() for seed in range(bends + 2)]
    states = [each.state_dict() for each in nets]
    path = BezierPath(nets[0], states[0], states[-1], states[1:-1])
    for at in (0.0, 0.3, 0.8, 1.0):
        shares = [comb(bends + 1, i) * at**i * (1 - at) ** (bends + 1 - i) for i in range(bends + 2)]
        for name in ("0.weight", "1.running_var"):
            expected = sum(share * state[name] for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(path.state_at(at)[name], expected, rtol=1e-12, atol=1e-12)


def test_a_polygon_goes_straight_from_bend_to_bend() -> None:
    nets = [net(seed) for seed in range(4)]
    path = PolygonPath(nets[0], nets[0], nets[3], nets[1:3])
    for at, (first, last, part) in {
        0.0: (0, 1, 0.0),
        0.25: (0, 1, 0.75),
        0.5: (1, 2, 0.5),
        1.0: (2, 3, 1.0),
    }.items():
        piece = LinearPath(nets[0], nets[first], nets[last])
        torch.testing.assert_close(path.state_at(at)["0.weight"], piece.state_at(part)["0.weight"])


@pytest.mark.parametrize("kind", ["bezier", "polygon"])
def test_gradients_reach_bends_and_position(kind: Any) -> None:
    curve = LearnedCurve(net(0).double(), net(1).double(), kind=kind, bends=2).eval()
    x = torch.randn(5, 3, dtype=torch.float64)
    names = [name for name, _ in curve.bends[0].named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in curve.bends[0].parameters()]

    def output(at: Tensor, *weights: Tensor) -> Tensor:
        states = [dict(zip(names, weights, strict=True)), dict(curve.bends[1].named_parameters())]
        bends = [{**bend.state_dict(), **state} for bend, state in zip(curve.bends, states, strict=True)]
        path = type(curve.path())(curve.start, curve.start, curve.end, bends)
        result: Tensor = path(x, at=at)
        return result

    at = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (at, *values))


@pytest.mark.parametrize("kind", ["bezier", "polygon"])
@pytest.mark.parametrize("bends", [1, 3])
def test_a_learned_curve_begins_as_the_segment(kind: Any, bends: int) -> None:
    first, last = net(0), net(1)
    curve = LearnedCurve(first, last, kind=kind, bends=bends)
    segment = LinearPath.between(first, last)
    for at in (0.0, 0.2, 0.5, 0.9, 1.0):
        for name, tensor in segment.state_at(at).items():
            torch.testing.assert_close(curve.state_at(at)[name], tensor)
    assert torch.equal(curve.module_at(0.0)[0].weight, first[0].weight)


def test_a_learned_curve_is_evaluated_as_a_path_and_changes_no_network() -> None:
    first, last = net(0), net(1).requires_grad_(False)
    before = [tensor.clone() for each in (first, last) for tensor in each.state_dict().values()]
    curve = LearnedCurve(first, last)
    batches = [(torch.randn(8, 3), torch.randint(2, (8,)))]
    losses = evaluate_path(curve, batches, points=5).losses
    with torch.no_grad():
        curve.bends[0][0].weight.add_(1.0)
    bent = evaluate_path(curve, batches, points=5).losses
    assert torch.equal(losses[[0, -1]], bent[[0, -1]])
    assert not torch.equal(losses, bent)
    after = [tensor for each in (first, last) for tensor in each.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert first[0].weight.requires_grad
    assert not last[0].weight.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [({"kind": "circle"}, "bezier, polygon"), ({"bends": 0}, "at least one bend")],
)
def test_bad_curves_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        LearnedCurve(net(0), net(1), **options)
    with pytest.raises(ArchitectureError, match="at least one bend"):
        BezierPath(net(0), net(0), net(1), [])
