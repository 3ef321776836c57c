"""What alignment is judged by: pure functions, and torchmetrics classes that accumulate over batches."""

from sinkhorn_rebasin.metrics.barrier import BarrierAUC, LossBarrier, MidpointAccuracy
from sinkhorn_rebasin.metrics.continual import (
    AccuracyMatrix,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from sinkhorn_rebasin.metrics.functional import (
    area_under_curve,
    barrier,
    permutation_agreement,
    permutation_recovery,
    relative_change,
)
from sinkhorn_rebasin.metrics.recovery import PermutationRecovery

__all__ = [
    "AccuracyMatrix",
    "AverageAccuracy",
    "BackwardTransfer",
    "BarrierAUC",
    "Forgetting",
    "ForwardTransfer",
    "LossBarrier",
    "MidpointAccuracy",
    "PermutationRecovery",
    "area_under_curve",
    "average_accuracy",
    "backward_transfer",
    "barrier",
    "forgetting",
    "forward_transfer",
    "permutation_agreement",
    "permutation_recovery",
    "relative_change",
]
