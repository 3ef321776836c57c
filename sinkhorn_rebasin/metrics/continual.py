"""What learning task after task is judged by: functions of the accuracy matrix, and metrics that fill it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sinkhorn_rebasin.errors import DataError


def average_accuracy(matrix: Tensor) -> Tensor:
    r"""Return the mean accuracy over all tasks.

    It is taken after the last task was learned.

    .. math:: \mathrm{ACC} = \tfrac1T \textstyle\sum_j a_{T,j}

    Args:
        matrix: (T, T); entry (i, j) is the accuracy on task j after learning the tasks up to i.

    Returns:
        0-d tensor.

    Raises:
        DataError: the matrix is not square, or an entry that is needed is NaN.

    Example:
        >>> average_accuracy(torch.tensor([[0.9, 0.1], [0.5, 0.7]])).item() == torch.tensor(0.6).item()
        True

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017).
    """
    return _known(_square(matrix)[-1], "the last row").mean()


def forgetting(matrix: Tensor) -> Tensor:
    r"""Measure how far accuracies fell from their best.

    The fall is averaged over all tasks but the last, and 0 for a single task.

    .. math:: F = \tfrac1{T-1} \textstyle\sum_{j<T} \bigl(\max_{j \le i < T} a_{i,j} - a_{T,j}\bigr)

    The best is taken from when the task was learned on, as the authors' own measurements do; what was guessed of a
    task before it came does not count.

    Args:
        matrix: (T, T); entry (i, j) is the accuracy on task j after learning the tasks up to i.

    Returns:
        0-d tensor; negative when later tasks helped.

    Raises:
        DataError: the matrix is not square, or an entry on or below the diagonal is NaN.

    Example:
        >>> forgetting(torch.tensor([[0.75, 0.0], [0.5, 0.7]])).item()
        0.25

    Source: Chaudhry, Dokania, Ajanthan, Torr, "Riemannian Walk for Incremental Learning: Understanding Forgetting
    and Intransigence" (2018).
    """
    seen = _seen(matrix)
    if len(seen) == 1:
        return seen.new_zeros(())
    best = seen.masked_fill(seen.isnan(), -torch.inf)[:-1, :-1].amax(dim=0)
    return (best - seen[-1, :-1]).mean()


def backward_transfer(matrix: Tensor) -> Tensor:
    r"""Measure how accuracies changed since they were learned.

    The change is averaged over all tasks but the last.

    .. math:: \mathrm{BWT} = \tfrac1{T-1} \textstyle\sum_{j<T} a_{T,j} - a_{j,j}

    Args:
        matrix: (T, T); entry (i, j) is the accuracy on task j after learning the tasks up to i.

    Returns:
        0-d tensor; negative where tasks were forgotten, 0 for a single task.

    Raises:
        DataError: the matrix is not square, or an entry on or below the diagonal is NaN.

    Example:
        >>> backward_transfer(torch.tensor([[0.75, 0.0], [0.5, 0.7]])).item()
        -0.25

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017).
    """
    seen = _seen(matrix)
    if len(seen) == 1:
        return seen.new_zeros(())
    return (seen[-1] - seen.diagonal())[:-1].mean()


def forward_transfer(matrix: Tensor, initial: Tensor) -> Tensor:
    r"""Measure how earlier tasks help before learning.

    It is how much better than untrained a task goes before it is learned, averaged over all tasks but the first.

    .. math:: \mathrm{FWT} = \tfrac1{T-1} \textstyle\sum_{j>1} a_{j-1,j} - b_j

    Args:
        matrix: (T, T); entry (i, j) is the accuracy on task j after learning the tasks up to i.
        initial: (T,), the accuracies b of the untrained network.

    Returns:
        0-d tensor; 0 for a single task.

    Raises:
        DataError: the matrix is not square, the initial accuracies do not fit, or an entry right above the diagonal
            is NaN: later tasks were not evaluated.

    Example:
        >>> forward_transfer(torch.tensor([[0.75, 0.5], [0.5, 0.7]]), torch.tensor([0.0, 0.25])).item()
        0.25

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017).
    """
    tasks = len(_square(matrix))
    if initial.shape != (tasks,):
        raise DataError(f"Expected {tasks} initial accuracies but got shape {tuple(initial.shape)}.")
    if tasks == 1:
        return matrix.new_zeros(())
    before = _known(matrix.diagonal(offset=1), "the accuracies right before each task")
    return (before - _known(initial[1:], "the initial accuracies")).mean()


def _square(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise DataError(
            f"Expected an accuracy matrix of shape (tasks, tasks) but got {tuple(matrix.shape)}; its row i holds "
            f"the accuracies on all tasks after learning the tasks up to i."
        )
    return matrix


def _seen(matrix: Tensor) -> Tensor:
    """Leave out what is above the matrix's diagonal."""
    rows = torch.arange(len(_square(matrix)), device=matrix.device)
    above = rows[:, None] < rows
    _known(matrix.masked_fill(above, 0.0), "the matrix on and below its diagonal")
    return matrix.masked_fill(above, torch.nan)


def _known(values: Tensor, what: str) -> Tensor:
    if bool(values.isnan().any()):
        raise DataError(
            f"Expected {what} to be evaluated but got NaN: test every task after each that is learned."
        )
    return values


class AccuracyMatrix(Metric):
    """Collect accuracies on every task after every task.

    They are filled in batch by batch.

    Args:
        tasks: how many tasks there are, T.

    Raises:
        DataError: there is not at least one task, an update names one that does not exist or has labels that do not
            fit, or no update before compute.

    Example:
        >>> metric = AccuracyMatrix(tasks=2)
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]), learned=1, task=0)
        >>> metric.compute()
        tensor([[0.5000,    nan],
                [   nan,    nan]])
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    samples: Tensor

    def __init__(self, tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if tasks < 1:
            raise DataError(f"Expected at least one task but got {tasks}.")
        self.tasks = tasks
        for name in ("correct", "samples"):
            counts = torch.zeros((tasks + 1, tasks), dtype=torch.long)
            self.add_state(name, default=counts, dist_reduce_fx="sum")

    def update(self, outputs: Tensor, labels: Tensor, learned: int, task: int) -> None:
        """Add one batch.

        Args:
            outputs: (samples, classes, ...), logits or probabilities.
            labels: (samples, ...), integer classes; negative ones do not count.
            learned: how many tasks the network has learned, 0 when it is untrained.
            task: the task the batch is of, counted from 0.
        """
        if not 0 <= learned <= self.tasks or not 0 <= task < self.tasks:
            raise DataError(
                f"Expected 0 <= learned <= {self.tasks} and 0 <= task < {self.tasks} but got learned={learned} "
                f"and task={task}."
            )
        predicted = outputs.argmax(dim=1)
        if predicted.shape != labels.shape or labels.is_floating_point():
            raise DataError(
                f"Expected integer labels of shape {tuple(predicted.shape)} for outputs of shape "
                f"{tuple(outputs.shape)} but got {labels.dtype} of shape {tuple(labels.shape)}."
            )
        self.correct, self.samples = self.correct.clone(), self.samples.clone()
        self.correct[learned, task] += (predicted == labels).sum().to(self.correct.device)
        self.samples[learned, task] += (labels >= 0).sum().to(self.samples.device)

    def forget(self, learned: int) -> None:
        """Drop what was counted after so many tasks.

        It is to be counted anew.
        """
        self.correct, self.samples = self.correct.clone(), self.samples.clone()
        self.correct[learned] = 0
        self.samples[learned] = 0
        self._computed = None

    def accuracies(self) -> Tensor:
        """Return all accuracies, (T + 1, T).

        The first row is that of the untrained network. NaN stands where nothing is known.
        """
        if not bool(self.samples.any()):
            raise DataError(f"Expected {type(self).__name__} to see a batch before it is computed.")
        return self.correct / self.samples

    def compute(self) -> Tensor:
        """Return the accuracy matrix, (T, T).

        NaN stands where nothing was evaluated.
        """
        return self.accuracies()[1:]


class AverageAccuracy(AccuracyMatrix):
    """Measure the mean accuracy over all tasks.

    It is taken after the last task: see :func:`average_accuracy`.
    """

    def compute(self) -> Tensor:
        """Return the average accuracy, a 0-d tensor."""
        return average_accuracy(super().compute())


class Forgetting(AccuracyMatrix):
    """Measure how far accuracies fell from their best.

    See :func:`forgetting`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the forgetting, a 0-d tensor."""
        return forgetting(super().compute())


class BackwardTransfer(AccuracyMatrix):
    """Measure how accuracies changed since they were learned.

    See :func:`backward_transfer`.
    """

    def compute(self) -> Tensor:
        """Return the backward transfer, a 0-d tensor."""
        return backward_transfer(super().compute())


class ForwardTransfer(AccuracyMatrix):
    """Measure how earlier tasks help before learning.

    It is how much better than untrained a task goes before it is learned: see :func:`forward_transfer`. The untrained
    network is what updates with ``learned=0`` are of.
    """

    def compute(self) -> Tensor:
        """Return the forward transfer, a 0-d tensor."""
        return forward_transfer(super().compute(), self.accuracies()[0])
