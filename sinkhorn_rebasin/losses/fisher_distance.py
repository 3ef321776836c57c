"""Data-free losses in the metric of the loss: how far two networks are apart as the reference's curvature sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.curvature import QuadraticForm
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.base import Rebasin, compared_weights
from sinkhorn_rebasin.networks.architecture import real_view


class FisherDistance:
    r"""Measure the weights' distance by the Fisher information.

    It is the mean squared distance, each weight's weighted by the Fisher information of the reference.

    .. math::
        \frac{\delta^\top F \delta + \mu \bar F \lVert \delta \rVert^2}{(1 + \mu) \operatorname{tr} F}, \qquad
        \delta = \pi_P(\theta_T) - \theta_R, \qquad \bar F = \tfrac1N \operatorname{tr} F

    over N parameter elements; with :func:`diagonal_fisher` :math:`\delta^\top F \delta = \sum_i F_i \delta_i^2`, with
    :func:`kronecker_fisher` :math:`\sum_l \operatorname{tr}(G_l \Delta_l A_l \Delta_l^\top)`. Divided by the
    trace it is a weighted mean, which does not depend on the size of the network or of its loss: for F = c I,
    and for a large damping µ, it is ``WeightDistance("l2")``. The rise of the loss from a minimum that it stands for
    is ``fisher.quadratic(delta) / 2`` nats. No data are needed any more: the batch is ignored. The curvature may stay
    on another device or in another type than the networks, at the cost of a copy per step: see its ``to``.

    Args:
        fisher: the curvature of the reference, from :func:`diagonal_fisher` or :func:`kronecker_fisher`.
        damping: µ, the share of a curvature that is the same for all weights, in units of the mean one; it holds
            directions that the data do not see, without which the factors lose planted permutations.

    Raises:
        LossError: when the curvature is zero or not finite, or the damping negative.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin, diagonal_fisher, kronecker_fisher
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> rebasin = SinkhornRebasin(a, b, torch.randn(2, 4))
        >>> data = [torch.randn(16, 4)]
        >>> for fisher in (diagonal_fisher(a, data), kronecker_fisher(a, data)):
        ...     FisherDistance(fisher)(rebasin).backward()
        >>> rebasin.scores["0"].grad.isfinite().all().item()
        True

    Source: the metric: Amari, "Natural gradient works efficiently in learning" (1998); factors: Martens, Grosse
    (2015); as the distance of networks to be merged: Matena, Raffel, "Merging models with Fisher-weighted averaging"
    (2022).
    """

    def __init__(self, fisher: QuadraticForm, *, damping: float = 1.0) -> None:
        if not 0 <= damping < float("inf"):
            raise LossError(f"Expected a damping of at least 0 but got {damping}.")
        self.fisher, self.damping, self._trace = fisher, damping, fisher.trace()
        if not 0 < self._trace < float("inf"):
            raise LossError(
                f"Expected a curvature with a positive, finite trace but got {self._trace}: a network that is "
                f"sure of every sampled or observed label has none; measure it with labels='expected' or more data."
            )

    def __call__(self, rebasin: Rebasin, batch: Any = None) -> Tensor:
        """Return the distance at the re-basin's current permutations.

        They are soft in training and hard in eval mode.

        Raises:
            ArchitectureError: when the curvature was measured on another architecture.
        """
        reference, rebased = rebasin.reference_state(), rebasin.rebased_state(own_dtype=False)
        compared = compared_weights(rebased, reference, rebasin.spec.compared)
        difference = {name: first - second for name, (first, second) in compared.items()}
        kept = [name for name in rebasin.spec.ignored if name in rebasin.spec.parameters]
        difference |= {name: torch.zeros_like(reference[name]) for name in kept}
        value = self.fisher.quadratic(difference)
        if self.damping:
            parts = [real_view(change) for change in difference.values()]
            square = torch.stack([part.square().sum() for part in parts]).sum()
            value = value + self.damping * self._trace / sum(part.numel() for part in parts) * square
        return value / ((1 + self.damping) * self._trace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.fisher).__name__}, damping={self.damping:g})"
