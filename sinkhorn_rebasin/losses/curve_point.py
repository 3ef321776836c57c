"""The loss on a bent curve whose start is the rebased target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Permutations
from sinkhorn_rebasin.connectivity.learned_curve import LearnedCurve
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.connectivity import MidpointLoss
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import permutation_matrix
from sinkhorn_rebasin.permutations.algebra import is_hard


class CurvePointLoss(MidpointLoss):
    r"""Evaluate the task loss along a bent curve.

    Points are drawn anew for every batch. The curve leads from the rebased target over fixed bends to the reference,
    and its loss trains the permutations.

    .. math:: \mathcal C\bigl(\theta(\lambda)\bigr) + \frac{1}{2\nu} \sum_g \lVert P_g - P_g^0 \rVert_F^2,
        \qquad \theta(0) = \pi_P(\theta_T), \quad \theta(1) = \theta_R, \quad \lambda \sim \mathcal U(0, 1)

    With :class:`CurveModule`, which trains the bends at fixed permutations, it is one half of proximal alternation.

    Args:
        curve: whose bends and kind count; between these networks in the reference's coordinates.
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        previous: P⁰, group name to indices; without them nothing holds the permutations back.
        proximal: ν, the larger the weaker.
        generator: draws λ; without it torch's global random state does.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        LossError: ν is not above zero.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> rebasin = SinkhornRebasin(a, b, torch.randn(2, 4))
        >>> loss = CurvePointLoss(LearnedCurve(rebasin.to_model(), a))
        >>> loss(rebasin, (torch.randn(16, 4), torch.randint(3, (16,)))).backward()
        >>> rebasin.scores["0"].grad.isfinite().all().item()
        True

    Source: Tatro, Chen, Das, Melnyk, Sattigeri, Lai, "Optimizing Mode Connectivity via Neuron Alignment" (2020).
    """

    def __init__(
        self,
        curve: LearnedCurve,
        criterion: Criterion = task_loss,
        *,
        previous: Permutations | None = None,
        proximal: float = 1e3,
        generator: torch.Generator | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(criterion, batch=batch)
        if not proximal > 0:
            raise LossError(f"Expected ν above 0 but got {proximal}.")
        self.curve, self.previous, self.proximal, self.generator = curve, previous, proximal, generator

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        inputs, labels = self.read(rebasin, batch)
        permutations = rebasin.permutations()
        start = rebasin.rebased_state(permutations=permutations)
        path = self.curve.path_between(start, rebasin.reference_state())
        loss = scored(self.criterion, rebasin.run(path.state_at(self.position()), inputs), labels)
        if self.previous is None or is_hard(permutations):
            return loss
        return loss + squared_distance(permutations, self.previous).to(loss) / (2 * self.proximal)

    def position(self) -> float:
        """Draw λ of the next evaluation."""
        return float(torch.rand((), generator=self.generator))


def squared_distance(soft: Permutations, hard: Permutations) -> Tensor:
    r"""Return the squared distance of permutations, soft from hard.

    .. math:: \sum_g \lVert P_g - P_g^0 \rVert_F^2

    Args:
        soft: group name to matrices (..., n, n).
        hard: the same groups, to indices (..., n).

    >>> squared_distance({"a": torch.full((2, 2), 0.5)}, {"a": torch.tensor([1, 0])}).item()
    1.0
    """
    distances = []
    for name, matrices in soft.items():
        dense = matrices if isinstance(matrices, Tensor) else matrices.to_dense()
        distances.append((dense - permutation_matrix(hard[name]).to(dense)).square().sum())
    return torch.stack(distances).sum()
