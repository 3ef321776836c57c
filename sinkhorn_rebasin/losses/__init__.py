"""Losses that train a re-basin: any callable ``(rebasin, batch) -> scalar`` is one."""

from sinkhorn_rebasin.losses.base import RebasinLoss, checked_loss
from sinkhorn_rebasin.losses.connectivity import MidpointLoss, RandomPointLoss
from sinkhorn_rebasin.losses.continual import ContinualLoss, consolidated_state, residual_state
from sinkhorn_rebasin.losses.curve_point import CurvePointLoss
from sinkhorn_rebasin.losses.fisher_distance import FisherDistance
from sinkhorn_rebasin.losses.repaired import RepairLoss
from sinkhorn_rebasin.losses.repaired_simplex import RepairSimplexLoss
from sinkhorn_rebasin.losses.simplex import SimplexLoss
from sinkhorn_rebasin.losses.weight_distance import WeightDistance
from sinkhorn_rebasin.networks.task_loss import task_loss

__all__ = [
    "ContinualLoss",
    "CurvePointLoss",
    "FisherDistance",
    "MidpointLoss",
    "RandomPointLoss",
    "RebasinLoss",
    "RepairLoss",
    "RepairSimplexLoss",
    "SimplexLoss",
    "WeightDistance",
    "checked_loss",
    "consolidated_state",
    "residual_state",
    "task_loss",
]
