from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.front import Comparison, Score
from tests.front.pairs import batches, samples, trained


def test_scores_are_those_of_each_network_and_of_the_mean_probabilities() -> None:
    members, merged = [trained(0), trained(1)], trained(2)
    comparison = sr.compare(members, merged, batches())
    points, labels = samples()
    with torch.no_grad():
        for network, score in zip([*members, merged], [*comparison.members, comparison.merged], strict=True):
            assert score.loss == pytest.approx(F.cross_entropy(network(points), labels).item(), rel=1e-5)
            assert score.accuracy == pytest.approx(
                (network(points).argmax(1) == labels).float().mean().item(), rel=1e-6
            )
        mean = torch.stack([network(points).double().softmax(1) for network in members]).mean(0)
    assert comparison.ensemble is not None
    assert comparison.ensemble.loss == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-5)


def test_outputs_themselves_are_averaged_where_labels_are_numbers() -> None:
    members = [nn.Linear(2, 1), nn.Linear(2, 1)]
    x, y = torch.randn(20, 2), torch.randn(20, 1)
    comparison = sr.compare(members, members[0], [(x, y)], nn.MSELoss())
    with torch.no_grad():
        mean = (members[0](x) + members[1](x)) / 2
    assert comparison.ensemble is not None
    assert comparison.ensemble.loss == pytest.approx(F.mse_loss(mean, y).item(), rel=1e-5)


def test_outputs_that_are_no_tensors_have_no_ensemble() -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.layer(x)}

    comparison = sr.compare([Returns(), Returns()], Returns(), batches())
    assert comparison.ensemble is None
    assert not any(name == "ensemble" for name, _ in comparison.rows())


@pytest.mark.parametrize(
    ("merged", "words"),
    [(0.5, "worse than the best member, by 0.2000"), (0.25, "50 % of the way to the ensemble")],
)
def test_the_verdict_says_whether_it_pays(merged: float, words: str) -> None:
    comparison = Comparison((Score(0.4), Score(0.3, 0.9)), Score(merged), Score(0.2))
    assert comparison.best == 1
    assert words in str(comparison)
    assert ("distil" in str(comparison)) == (merged > 0.3)
    assert "90.00 %" in str(comparison)


def test_no_share_of_an_ensemble_that_is_no_better_than_a_member() -> None:
    assert Comparison((Score(0.2), Score(0.3)), Score(0.1), Score(0.2)).share_of_ensemble is None


def test_nothing_is_changed() -> None:
    members, merged = [trained(0).train(), trained(1)], trained(2)
    before = [tensor.clone() for network in [*members, merged] for tensor in network.state_dict().values()]
    state = torch.get_rng_state()
    sr.compare(members, merged, batches())
    after = [tensor for network in [*members, merged] for tensor in network.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert torch.equal(state, torch.get_rng_state())
    assert members[0].training
    assert all(parameter.requires_grad for parameter in members[0].parameters())
    members[0].eval()


@pytest.mark.parametrize(
    ("members", "data", "error", "words"),
    [
        (1, batches(), ArchitectureError, "at least two networks"),
        (2, [], DataError, "at least one batch"),
        (2, iter(batches()), DataError, "one-shot"),
        (2, [samples()[0]], DataError, "labels"),
    ],
)
def test_bad_input_is_named(members: int, data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sr.compare([trained(number) for number in range(members)], trained(2), data)


def test_members_of_an_ensemble_return_one_shape() -> None:
    ensemble = sr.Ensemble([nn.Linear(2, 3), nn.Linear(2, 4)])
    with pytest.raises(LossError, match="member 1"):
        ensemble(torch.ones(1, 2))
    with pytest.raises(ArchitectureError, match="at least two"):
        sr.Ensemble([nn.Linear(2, 3)])


def test_states_are_no_networks_to_compare() -> None:
    nets = [trained(0), trained(1)]
    state = dict(nets[1].state_dict())
    for given, merged, told in ((nets, state, "the merge"), ([nets[0], state], nets[0], "member 1")):
        with pytest.raises(
            ArchitectureError, match=rf"{told} to be a module, .* but got dict: load .* to_model"
        ):
            sr.compare(given, merged, batches())  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="member 1 to be a module"):
        sr.Ensemble([nets[0], state])  # type: ignore[list-item]
