"""Statistics of a network's activations, and putting them right after its weights were moved or merged."""

from sinkhorn_rebasin.activations.batch_norm import BatchNormReset, batch_norm_statistics, reset_batch_norm
from sinkhorn_rebasin.activations.repair import RepairAlongPath, repair

__all__ = ["BatchNormReset", "RepairAlongPath", "batch_norm_statistics", "repair", "reset_batch_norm"]
