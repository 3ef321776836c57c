"""Each task sees its own outputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual import FineTuning
from sinkhorn_rebasin.training.continual.heads import Heads

OUTPUTS = torch.arange(10.0).reshape(2, 5)


def test_columns_of_other_tasks_are_hidden() -> None:
    heads = Heads([[0, 3], [1, 2]])
    shown = heads(OUTPUTS, torch.tensor([0, 1]), fill=-1.0)
    assert shown.tolist() == [[0, -1, -1, 3, -1], [-1, 6, 7, -1, -1]]
    assert heads(OUTPUTS, 1).isneginf().sum() == 6
    assert torch.equal(OUTPUTS, torch.arange(10.0).reshape(2, 5))


def test_the_criterion_is_that_of_the_task_alone() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    loss = F.cross_entropy(Heads([[0, 3], [1, 2]])(outputs, 1), torch.tensor([2, 1]))
    torch.testing.assert_close(loss, F.cross_entropy(outputs[:, 1:3], torch.tensor([1, 0])))
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad[:, [0, 3, 4]].abs().sum() == 0


@pytest.mark.parametrize("tasks", [1, torch.tensor([1, 0, 1])])
def test_smoothed_labels_are_smoothed_within_the_task(tasks: torch.Tensor | int) -> None:
    classes = [[0, 3], [1, 2, 4]]
    learner = FineTuning(
        torch.nn.Linear(2, 5), 2, classes=classes, criterion=torch.nn.CrossEntropyLoss(label_smoothing=0.2)
    )
    outputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    each = [1, 1, 1] if isinstance(tasks, int) else tasks.tolist()
    labels = torch.tensor([classes[task][-1] for task in each])
    loss = learner.task_loss(outputs, labels, tasks)
    alone = [
        F.cross_entropy(row[None, classes[task]], torch.tensor([len(classes[task]) - 1]), label_smoothing=0.2)
        for row, task in zip(outputs, each, strict=True)
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean())
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_shared_outputs_are_passed_on() -> None:
    assert Heads()(OUTPUTS, 3) is OUTPUTS


def test_errors() -> None:
    with pytest.raises(DataError, match="columns for task 1"):
        Heads([[0], []])
    with pytest.raises(DataError, match=r"at least 7 columns.*\(2, 5\)"):
        Heads([[6]])(OUTPUTS, 0)


def test_labels_that_are_no_columns_of_their_task_are_named() -> None:
    heads = Heads([[0, 1], [2, 3]])
    heads.check_labels(torch.tensor([2, 3]), 1)
    heads.check_labels(torch.tensor([0, 3]), torch.tensor([0, 1]))
    for labels, tasks in (([2, 0], 1), ([1, 1], torch.tensor([0, 1])), ([2, 7], 1)):
        with pytest.raises(DataError, match=r"classes \[2, 3\] of the sample's task.* but got [017]"):
            heads.check_labels(torch.tensor(labels), tasks)
    Heads().check_labels(torch.tensor([9]), 0)
