"""Data-free losses: how far the rebased target's weights are from the reference's."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.base import Rebasin, compared_weights
from sinkhorn_rebasin.networks.architecture import real_view


class WeightDistance:
    r"""Measure the distance between two networks' parameters.

    They are those of the rebased target and of the reference.

    .. math::
        \mathrm{l2}: \tfrac1N \lVert \pi_P(\theta_T) - \theta_R \rVert_2^2 \qquad
        \mathrm{l1}: \tfrac1N \lVert \pi_P(\theta_T) - \theta_R \rVert_1 \qquad
        \mathrm{cosine}: \tfrac1L \sum_l 1 - \cos(\pi_P(\theta_T)_l, (\theta_R)_l)

    over N parameter elements in L tensors, tied ones once; buffers do not count, nor, for the cosine, tensors that
    are zero in the reference and so have no direction, nor numbers that are infinite in either network. Complex
    numbers count as pairs of real ones. It needs no data: the batch is ignored.

    Args:
        kind: ``"l2"``, ``"l1"`` or ``"cosine"``.

    Raises:
        LossError: for another kind.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> rebasin = SinkhornRebasin(net, net, torch.randn(2, 4)).eval()
        >>> float(WeightDistance("l2")(rebasin))
        0.0

    Source: Guerrero-Peña et al., "Re-basin via implicit Sinkhorn differentiation" (2023).
    """

    def __init__(self, kind: Literal["l2", "l1", "cosine"] = "l2") -> None:
        if kind not in ("l2", "l1", "cosine"):
            raise LossError(f"Expected kind to be 'l2', 'l1' or 'cosine' but got {kind!r}.")
        self.kind = kind

    def __call__(self, rebasin: Rebasin, batch: Any = None) -> Tensor:
        """Return the distance at the re-basin's current permutations.

        They are soft in training and hard in eval mode.
        """
        reference, rebased = rebasin.reference_state(), rebasin.rebased_state(own_dtype=False)
        compared = compared_weights(rebased, reference, rebasin.spec.compared).values()
        pairs = [(real_view(first), real_view(second)) for first, second in compared]
        if self.kind == "cosine":
            directed = [(a.flatten(), b.flatten()) for a, b in pairs if bool(b.any())]
            if not directed:
                return torch.stack([a.sum() * 0 for a, _ in pairs]).sum()
            angles = [1 - torch.cosine_similarity(a, b, dim=0) for a, b in directed]
            return torch.stack(angles).mean()
        distance = F.mse_loss if self.kind == "l2" else F.l1_loss
        total = torch.stack([distance(a, b, reduction="sum") for a, b in pairs]).sum()
        return total / sum(a.numel() for a, _ in pairs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind!r})"
