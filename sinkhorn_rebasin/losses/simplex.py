"""The loss of a random mean of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.connectivity import MidpointLoss
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss


class SimplexLoss(MidpointLoss):
    r"""Evaluate the task loss at random means.

    Shares are drawn anew for every batch, of the networks of a :class:`JointRebasin`.

    .. math:: \mathcal C\Bigl(\sum_m w_m\, \pi_m(\theta_m)\Bigr), \qquad
        w \sim \mathrm{Dirichlet}(\alpha M s_1, \dots, \alpha M s_M)

    Args:
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        concentration: α. At 8 the middle becomes good, at 1 all of the simplex, and infinity is the middle alone.
        middle: s, the mean around which shares are drawn, one number above zero a network; equal without it.
        generator: draws w; without it torch's global random state does.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        LossError: a concentration that is not above zero, or a middle that is none.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.merging import JointRebasin
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> joint = JointRebasin(nets, torch.randn(2, 4))
        >>> SimplexLoss()(joint, (torch.randn(16, 4), torch.randint(3, (16,)))).requires_grad
        True

    Source: this package; Theus et al., "Generalized Linear Mode Connectivity for Transformers" (2025), for α = 0.1.
    """

    def __init__(
        self,
        criterion: Criterion = task_loss,
        concentration: float = 8.0,
        *,
        middle: Sequence[float] | None = None,
        generator: torch.Generator | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(criterion, batch=batch)
        if not concentration > 0:
            raise LossError(f"Expected a concentration above 0 but got {concentration}.")
        if middle is not None and not (min(middle) > 0 and abs(sum(middle) - 1) < 1e-6):
            raise LossError(f"Expected shares above 0 that add up to 1 as the middle but got {list(middle)}.")
        self.concentration, self.middle, self.generator = concentration, middle, generator

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        inputs, labels = self.read(rebasin, batch)
        return scored(self.criterion, rebasin(inputs, shares=self.shares(len(rebasin))), labels)

    def shares(self, count: int) -> list[float]:
        """Draw w for so many networks.

        >>> sum(SimplexLoss(concentration=float("inf")).shares(4))
        1.0
        >>> SimplexLoss(concentration=float("inf"), middle=[0.75, 0.25]).shares(2)
        [0.75, 0.25]
        """
        middle = [1 / count] * count if self.middle is None else list(self.middle)
        if len(middle) != count:
            raise LossError(f"Expected a middle of {count} networks but got {len(middle)} shares.")
        if self.concentration == float("inf"):
            return middle
        place = "cpu" if self.generator is None else self.generator.device
        alpha = self.concentration * count * torch.tensor(middle, dtype=torch.float64, device=place)
        drawn = torch._standard_gamma(alpha, generator=self.generator)
        return (drawn / drawn.sum()).tolist()
