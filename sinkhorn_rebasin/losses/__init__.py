"""Losses that train a re-basin: any callable ``(rebasin, batch) -> scalar`` is one."""

from sinkhorn_rebasin.losses.base import RebasinLoss, checked_loss
from sinkhorn_rebasin.losses.connectivity import MidpointLoss, RandomPointLoss
from sinkhorn_rebasin.losses.fisher_distance import FisherDistance
from sinkhorn_rebasin.losses.repaired import RepairedPointLoss
from sinkhorn_rebasin.losses.weight_distance import WeightDistance

__all__ = [
    "FisherDistance",
    "MidpointLoss",
    "RandomPointLoss",
    "RebasinLoss",
    "RepairedPointLoss",
    "WeightDistance",
    "checked_loss",
]
