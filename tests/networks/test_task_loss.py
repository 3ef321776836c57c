"""The loss where no criterion is given, and what criteria make of outputs that hold logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.counting import batch_weight
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.networks.task_loss import task_loss

RANDOM = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(4, 3, generator=RANDOM), torch.tensor([0, 2, -100, 1])
TOKENS, NEXT = torch.randn(2, 5, 7, generator=RANDOM), torch.randint(7, (2, 5), generator=RANDOM)
NEXT[0, 3:] = -100


def same_token() -> Tensor:
    return F.cross_entropy(TOKENS.flatten(0, 1), NEXT.flatten())


def next_token() -> Tensor:
    return F.cross_entropy(TOKENS[:, :-1].flatten(0, 1), NEXT[:, 1:].flatten())


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_a_reported_loss_comes_first_and_cross_entropy_else(kind: Any) -> None:
    expected = F.cross_entropy(LOGITS, LABELS)
    assert torch.equal(task_loss(LOGITS, LABELS), expected)
    assert torch.equal(task_loss(kind(logits=LOGITS), LABELS), expected)
    assert task_loss(kind(logits=LOGITS, loss=torch.tensor([1.0, 3.0])), LABELS).item() == 2.0
    assert torch.equal(task_loss(kind(logits=LOGITS, loss=None), LABELS), expected)


@pytest.mark.parametrize(
    ("outputs", "labels", "error", "told"),
    [
        (LOGITS, None, DataError, "labels in every batch"),
        ({"logits": LOGITS}, None, DataError, "dict without a loss"),
        ({"scores": LOGITS}, LABELS, LossError, "criterion"),
        ((LOGITS,), LABELS, LossError, "returns tuple"),
        ({"logits": TOKENS}, NEXT, LossError, "next token"),
        (LOGITS, LABELS[:, None], DataError, r"got shape \(\d+, 1\): reshape them, as with \.squeeze\(1\)"),
    ],
)
def test_what_has_no_default_is_refused(outputs: Any, labels: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        task_loss(outputs, labels)


@pytest.mark.parametrize("criterion", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_criteria_of_pytorch_take_the_logits(criterion: Any) -> None:
    assert torch.equal(
        scored(criterion, {"logits": LOGITS, "loss": torch.ones(())}, LABELS), criterion(LOGITS, LABELS)
    )
    torch.testing.assert_close(scored(criterion, {"logits": TOKENS}, NEXT), same_token())
    with pytest.raises(LossError, match="hold logits"):
        scored(criterion, {"scores": LOGITS}, LABELS)


def test_functions_of_others_take_the_outputs_as_they_are() -> None:
    returned = {"logits": LOGITS}
    assert scored(lambda outputs, _: torch.tensor(outputs is returned), returned, LABELS)
    numbers = {"logits": torch.ones(3, 1)}
    assert scored(F.mse_loss, numbers, torch.zeros(3, 1)).item() == 1.0


@pytest.mark.parametrize(
    ("loss", "weight", "length"),
    [(next_token, 6, 4), (same_token, 8, 5), (lambda: same_token() + 1, 2, None)],
)
def test_labels_count_as_in_the_loss_that_is_reported(loss: Any, weight: int, length: int | None) -> None:
    returned = {"loss": loss(), "logits": TOKENS}
    scores, labels = compared(returned, NEXT)
    assert float(batch_weight(scores, labels, task_loss, 2)) == weight
    if length is None:
        assert scores is returned
    else:
        assert scores.shape == (2, 7, length)
        assert labels.shape == (2, length)


class Reporting(nn.Module):
    def forward(self, x: Tensor, start: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": x.mean()}


def test_dictionaries_without_labels_are_for_networks_that_report_a_loss() -> None:
    batch = {"x": torch.ones(2), "start": torch.ones(2)}
    inputs, labels = read_batch(batch, network=Reporting(), criterion=task_loss)
    assert (list(inputs), labels) == (["x", "start"], None)
    for criterion in (F.cross_entropy, None):
        with pytest.raises(DataError, match="no labels"):
            read_batch(batch, network=Reporting(), criterion=criterion)
    with pytest.raises(DataError, match="no labels"):
        read_batch(torch.ones(2), network=Reporting(), criterion=task_loss)
