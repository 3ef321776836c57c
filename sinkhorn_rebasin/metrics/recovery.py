"""How much of a planted permutation was found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics.functional import count_agreeing


class PermutationRecovery(Metric):
    """Measure how well planted permutations are found.

    It counts the fraction of units put where the truth puts them, and of problems solved without a single mistake.

    Args:
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        DataError: groups or sizes differ, or no update before compute.

    Example:
        >>> metric = PermutationRecovery()
        >>> metric.update(torch.tensor([1, 0, 2, 3]), torch.tensor([1, 0, 3, 2]))
        >>> metric.update({"hidden": torch.tensor([0, 1])}, {"hidden": torch.tensor([0, 1])})
        >>> found = metric.compute()
        >>> round(found["recovered"].item(), 3), found["exact"].item()
        (0.667, 0.5)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    agreeing: Tensor
    units: Tensor
    solved: Tensor
    problems: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("agreeing", "units", "solved", "problems"):
            self.add_state(name, default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, estimated: Permutations | Tensor, truth: Permutations | Tensor) -> None:
        """Add one problem.

        Args:
            estimated: indices (..., n) or a soft matrix (..., n, n), alone or by group name.
            truth: the planted permutation, in the same form.
        """
        agreeing, units = count_agreeing(estimated, truth)
        self.agreeing = self.agreeing + agreeing
        self.units = self.units + units
        self.solved = self.solved + int(agreeing == units)
        self.problems = self.problems + 1

    def compute(self) -> dict[str, Tensor]:
        """Return ``recovered`` and ``exact``, 0-d each.

        They are the fraction of units and the fraction of problems.
        """
        if self.problems == 0:
            raise DataError("Expected PermutationRecovery to see a problem before it is computed.")
        recovered = self.agreeing / self.units if self.units else torch.ones_like(self.units / 1)
        return {"recovered": recovered, "exact": self.solved / self.problems}
