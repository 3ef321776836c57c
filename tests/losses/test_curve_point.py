from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import LearnedCurve
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses import CurvePointLoss
from sinkhorn_rebasin.losses.curve_point import squared_distance
from tests.front.pairs import samples, trained


def problem() -> tuple[sr.SinkhornRebasin, LearnedCurve]:
    x = samples()[0][:4]
    rebasin = sr.SinkhornRebasin(trained(0), trained(1), x, temperature=0.5)
    curve = LearnedCurve(rebasin.to_model(), trained(0))
    with torch.no_grad():
        for tensor in curve.bends.parameters():
            tensor.add_(0.1)
    return rebasin, curve


def test_the_loss_is_that_of_the_quadratic_bezier_by_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    rebasin, curve = problem()
    loss, (x, y), at = CurvePointLoss(curve), samples(), 0.3
    monkeypatch.setattr(loss, "position", lambda: at)
    start, end, bend = rebasin.rebased_state(), trained(0).state_dict(), curve.bends[0].state_dict()
    point = {
        name: (1 - at) ** 2 * start[name] + 2 * at * (1 - at) * bend[name] + at**2 * end[name] for name in end
    }
    expected = F.cross_entropy(torch.func.functional_call(trained(0), point, x), y)
    torch.testing.assert_close(loss(rebasin, (x, y)), expected)


def test_the_distance_from_previous_permutations_is_added_and_only_scores_get_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebasin, curve = problem()
    previous = rebasin.hard_permutations()
    plain, held = CurvePointLoss(curve), CurvePointLoss(curve, previous=previous, proximal=0.25)
    for loss in (plain, held):
        monkeypatch.setattr(loss, "position", lambda: 0.6)
    soft = rebasin.soft_permutations()
    expected = sum((soft[name] - torch.eye(8)[previous[name]]).square().sum() for name in soft) / 0.5
    difference = held(rebasin, samples()) - plain(rebasin, samples())
    torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-4)
    held(rebasin, samples()).backward()
    assert all(scores.grad.abs().sum() > 0 for scores in rebasin.scores.values())
    assert all(tensor.grad is None for tensor in curve.bends.parameters())
    assert float(squared_distance({n: torch.eye(8)[p] for n, p in previous.items()}, previous)) == 0


def test_positions_are_drawn_from_the_whole_curve_by_the_generator() -> None:
    _, curve = problem()
    first, again = (CurvePointLoss(curve, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    drawn = [first.position() for _ in range(50)]
    assert drawn == [again.position() for _ in range(50)]
    assert min(drawn) < 0.1 < 0.9 < max(drawn)


def test_a_strength_of_nothing_is_refused() -> None:
    with pytest.raises(LossError, match="above 0"):
        CurvePointLoss(problem()[1], proximal=0.0)
