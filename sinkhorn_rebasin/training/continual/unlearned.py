"""Tells when a task was trained on and not learned."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import LearningWarning

ENOUGH = 64
"""How many of the last samples of a fit a task is judged by."""


def recall_by_class(predictions: Tensor, labels: Tensor) -> dict[int, float]:
    """Return the share of each class that was recognized.

    Negative labels do not count.

    >>> recall_by_class(torch.tensor([2, 2, 0]), torch.tensor([2, 3, -1]))
    {2: 1.0, 3: 0.0}
    """
    hits = predictions == labels
    return {int(label): float(hits[labels == label].float().mean()) for label in labels[labels >= 0].unique()}


def warn_if_unlearned(recall: dict[int, float], learner: str, task: int, rates: str, advice: str) -> None:
    """Warn when recall is no better than one constant answer's.

    With k classes that is a mean recall of 1/k; of a single class, one half.

    Args:
        recall: that of the task's classes, on its training samples.
        learner: name of the method.
        task: its number.
        rates: what it was learned with.
        advice: what to do next.

    Warns:
        LearningWarning: the task was not learned; learner and rates are named.

    >>> warn_if_unlearned({2: 1.0, 3: 0.9}, "FineTuning", 1, "SGD at a rate of 0.02", "")
    """
    if not recall or sum(recall.values()) / len(recall) > 1 / max(len(recall), 2):
        return
    mean = sum(recall.values()) / len(recall)
    warnings.warn(
        f"Expected {learner} to learn task {task} but it recognizes {mean:.0%} of the task's own training samples, "
        f"no more than a constant answer does, after {rates}. {advice}",
        LearningWarning,
        stacklevel=2,
    )


def rates_of(optimizers: Iterable[torch.optim.Optimizer]) -> str:
    """Name optimizers and the rates they began with.

    >>> rates_of([torch.optim.SGD([torch.zeros(1)], lr=0.05)])
    'SGD at a rate of 0.05'
    """
    return " and ".join(
        f"{type(optimizer).__name__} at a rate of {_first_rate(optimizer.param_groups):g}"
        for optimizer in optimizers
    )


def _first_rate(groups: Sequence[dict[str, float]]) -> float:
    return float(groups[0].get("initial_lr", groups[0]["lr"]))
