"""Curvature of networks that return objects, by a criterion that reads what it needs of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import kronecker_fisher
from sinkhorn_rebasin.errors import LossError
from tests.symmetry.attention_networks import ModelOutput


class Reporting(nn.Module):
    """Logits, what is behind them, and a loss of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = self.body(x).tanh()
        logits = self.head(hidden)
        return ModelOutput(logits=logits, hidden=(hidden,), loss=logits.square().mean())


class Joined(Reporting):
    """Logits and hidden units side by side in one tensor."""

    def forward(self, x: Tensor) -> Any:
        found = super().forward(x)
        return torch.cat([found["logits"], found["hidden"][0]], 1)


def of_parts(outputs: Any, labels: Tensor) -> Tensor:
    penalty = outputs["hidden"][0].square().sum(1).mean()
    return F.cross_entropy(outputs["logits"], labels) + penalty


def of_tensor(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs[:, :3], labels) + outputs[:, 3:].square().sum(1).mean()


@pytest.fixture
def problem() -> tuple[nn.Module, nn.Module, list[Any]]:
    torch.manual_seed(0)
    model, joined = Reporting(), Joined()
    joined.load_state_dict(model.state_dict())
    return model, joined, [(torch.randn(6, 4), torch.randint(3, (6,))), (torch.randn(3, 4), torch.arange(3))]


def test_a_criterion_of_parts_gives_the_factors_of_one_on_the_tensor(problem: Any) -> None:
    model, joined, data = problem
    found, expected = (
        kronecker_fisher(network, data, criterion, labels="observed")
        for network, criterion in ((model, of_parts), (joined, of_tensor))
    )
    assert set(found.layers) == {"body", "head"}
    for name, layer in found.layers.items():
        torch.testing.assert_close(layer.outputs, expected.layers[name].outputs)
        torch.testing.assert_close(layer.inputs, expected.layers[name].inputs)


def test_labels_drawn_from_logits_are_taken_too(problem: Any) -> None:
    model, _, data = problem

    def plain(outputs: Any, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs["logits"], labels)

    found, expected = (
        kronecker_fisher(model, data, criterion).trace() for criterion in (plain, F.cross_entropy)
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_belongs_to_the_batch_alone_is_refused(problem: Any) -> None:
    model, _, data = problem
    with pytest.raises(LossError, match="sample by sample but got ModelOutput"):
        kronecker_fisher(model, data, lambda outputs, _: outputs["loss"], labels="observed")
