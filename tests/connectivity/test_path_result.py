"""The result of an evaluation: its figures, its receipt and its refusals."""

import json

import pytest
import torch

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.errors import DataError

POSITIONS = torch.linspace(0, 1, 5)


def bump(accuracies: bool = True) -> PathEvaluation:
    losses = torch.tensor([1.0, 1.5, 4.0, 2.5, 2.0])
    return PathEvaluation(POSITIONS, losses, torch.tensor([0.9, 0.8, 0.3, 0.6, 0.7]) if accuracies else None)


def test_figures() -> None:
    path = bump()
    assert path.barrier == 2.5  # at the midpoint: 4 over a chord of 1.5
    assert path.auc == pytest.approx((0.25 + 2.5 + 0.75) / 4)
    assert path.accuracy_barrier == pytest.approx(0.5)
    assert (path.midpoint_loss, path.endpoints) == (4.0, (1.0, 2.0))
    assert path.midpoint_accuracy == pytest.approx(0.3)
    assert path.endpoint_accuracies == pytest.approx((0.9, 0.7))
    assert {path.positions.dtype, path.losses.dtype} == {torch.float64}


def test_without_accuracies() -> None:
    path = bump(accuracies=False)
    assert (path.accuracies, path.accuracy_barrier, path.midpoint_accuracy) == (None, None, None)
    assert path.endpoint_accuracies is None
    assert "accuracy" not in str(path)


@pytest.mark.parametrize("accuracies", [True, False])
def test_receipt_round_trip(accuracies: bool) -> None:
    path = bump(accuracies)
    text = json.dumps(path.to_dict())
    again = PathEvaluation.from_dict(json.loads(text))
    assert torch.equal(again.losses, path.losses)
    assert (again.accuracies is None) == (path.accuracies is None)
    assert json.dumps(again.to_dict()) == text


def test_text_names_ends_and_figures() -> None:
    text = str(bump())
    for part in ("target (rebased)", "reference", "λ=½", "2.5000", "30.00 %", "50.00 points"):
        assert part in text


def test_does_not_keep_a_graph_or_share_an_argument() -> None:
    losses = torch.rand(5, requires_grad=True)
    path = PathEvaluation(POSITIONS, losses)
    assert not path.losses.requires_grad


@pytest.mark.parametrize(
    ("positions", "losses", "text"),
    [
        ([0.0, 1.0], [1.0, 1.0], "0.5 among them"),
        ([0.0, 0.5, 0.9], [1.0, 1.0, 1.0], "from 0 to 1"),
        ([0.0, 0.5, 1.0], [1.0, 1.0], "losses of shape"),
        ([1.0, 0.5, 0.0], [1.0, 1.0, 1.0], "ascending"),
    ],
)
def test_errors(positions: list[float], losses: list[float], text: str) -> None:
    with pytest.raises(DataError, match=text):
        PathEvaluation(torch.tensor(positions), torch.tensor(losses))
    with pytest.raises(DataError, match="Expected 'losses'"):
        PathEvaluation.from_dict({"positions": positions})
