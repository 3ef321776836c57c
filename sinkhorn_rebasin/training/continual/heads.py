"""Which outputs of a network belong to which task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import Criterion
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.counting import adds_up, counted_labels
from sinkhorn_rebasin.networks.scoring import check_criterion
from sinkhorn_rebasin.networks.task_loss import scores_of


class Heads(nn.Module):
    """Restrict samples to their own task's outputs.

    Samples see all outputs where tasks share their classes.

    A head is a set of output columns: a network with one output layer per task returns them side by side.

    Args:
        classes: per task, its output columns; None: every task has all of them.

    Raises:
        DataError: a task without classes, or outputs that have fewer columns than the classes need.

    Example:
        >>> heads = Heads([[0, 1], [2, 3]])
        >>> heads(torch.tensor([[1.0, 2.0, 9.0, 3.0]]), torch.tensor([0]))
        tensor([[1., 2., -inf, -inf]])
    """

    visible: Tensor

    def __init__(self, classes: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        self.shared = classes is None
        if classes is None:
            classes = []
        for task, own in enumerate(classes):
            if not own or min(own) < 0:
                raise DataError(f"Expected output columns for task {task} but got {list(own)}.")
        columns = max((max(own) + 1 for own in classes), default=0)
        visible = torch.zeros((len(classes), columns), dtype=torch.bool)
        for task, own in enumerate(classes):
            visible[task, list(own)] = True
        self.register_buffer("visible", visible)

    def forward(self, outputs: Any, tasks: Tensor | int, fill: float = -torch.inf) -> Tensor:
        """Return the outputs with other tasks' replaced.

        Args:
            outputs: (samples, columns), or an object with such ``logits``.
            tasks: (samples,), the task of each sample, or one number for all.
            fill: what other tasks' outputs become.
        """
        outputs = scores_of(outputs)
        if self.shared:
            return outputs
        if outputs.ndim != 2 or outputs.shape[1] < self.visible.shape[1]:
            raise DataError(
                f"Expected outputs of shape (samples, columns) with at least {self.visible.shape[1]} columns, which "
                f"the classes of the tasks name, but got {tuple(outputs.shape)}."
            )
        own = self.visible[tasks].expand(len(outputs), -1)
        hidden = nn.functional.pad(~own, (0, outputs.shape[1] - own.shape[1]), value=True)
        return outputs.masked_fill(hidden, fill)

    def loss(self, criterion: Criterion, outputs: Any, labels: Tensor, tasks: Tensor | int) -> Tensor:
        """Return the criterion within each sample's task.

        Each sample sees the outputs of its own task.

        Raises:
            DataError: a label that counts is no class of its sample's task.

        Example:
            >>> heads = Heads([[0, 1], [2, 3]])
            >>> loss = heads.loss(nn.functional.cross_entropy, torch.zeros(1, 4), torch.tensor([3]), 1)
            >>> torch.allclose(loss.exp(), torch.tensor(2.0))    # two classes, not four
            True
        """
        check_criterion(criterion)
        outputs, counted = scores_of(outputs), counted_labels(labels, criterion)
        self.check_labels(counted, tasks)
        loss = criterion(self(outputs, tasks), labels)
        if self.shared or labels.ndim != 1 or labels.is_floating_point() or bool(loss.isfinite().all()):
            return loss
        # It counts hidden outputs, as smoothed labels do: without them, one task after the other.
        known = counted >= 0
        each = torch.as_tensor(tasks, device=labels.device).expand(len(labels))[known]
        parts = [
            criterion(*own) * (1 if adds_up(criterion) else len(own[1]) / len(each))
            for own in self.apart(outputs[known], labels[known], each)
        ]
        return torch.stack(parts).sum() if parts else loss

    def apart(self, outputs: Tensor, labels: Tensor, tasks: Tensor | int) -> Iterator[tuple[Tensor, Tensor]]:
        """Split outputs and labels by task.

        There is one part for each task that samples are of. Labels are numbered within the task's outputs.

        >>> heads = Heads([[0, 1], [2, 3]])
        >>> list(heads.apart(torch.tensor([[1.0, 2.0, 9.0, 3.0]]), torch.tensor([3]), 1))
        [(tensor([[9., 3.]]), tensor([1]))]
        """
        each = torch.as_tensor(tasks, device=labels.device).expand(len(labels))
        for task in each.unique():
            columns = self.visible[task].nonzero().flatten()
            own = each == task
            yield outputs[own][:, columns], torch.searchsorted(columns, labels[own])

    def check_labels(self, labels: Tensor, tasks: Tensor | int) -> None:
        """Raise DataError for labels outside the task.

        Every label must be an output column of its sample's task. Negative ones do not count.

        Raises:
            DataError: some are not.
        """
        if self.shared or labels.ndim != 1 or labels.is_floating_point():
            return
        columns = torch.arange(self.visible.shape[1], device=labels.device)
        own = self.visible[tasks].expand(len(labels), -1)
        known = (own & (labels[:, None] == columns)).any(dim=1) | (labels < 0)
        if not bool(known.all()):
            first = int((~known).nonzero()[0])
            classes = own[first].nonzero().flatten().tolist()
            raise DataError(
                f"Expected labels among the classes {classes} of the sample's task, as labels are output columns, "
                f"but got {int(labels[first])}. Number labels over all tasks, not anew in each."
            )

    def mean_square(self, outputs: Tensor, tasks: Tensor) -> Tensor:
        """Average the squared outputs of each sample's task.

        The mean is over samples and outputs.
        """
        squares = self(outputs, tasks, fill=0.0).square()
        if self.shared:
            return squares.mean()
        return (squares.sum(dim=1) / self.visible[tasks].sum(dim=1)).mean()
