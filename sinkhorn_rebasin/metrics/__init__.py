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
from sinkhorn_rebasin.metrics.curve_connectivity import curve_connectivity, path_curvature
from sinkhorn_rebasin.metrics.functional import (
    area_under_curve,
    barrier,
    permutation_agreement,
    permutation_recovery,
    relative_change,
)
from sinkhorn_rebasin.metrics.output_cka import output_cka
from sinkhorn_rebasin.metrics.recovery import PermutationRecovery
from sinkhorn_rebasin.metrics.similarity import (
    LinearCKA,
    UnitSimilarity,
    linear_cka,
    unit_similarity,
    wreath_distance,
)

__all__ = [
    "AccuracyMatrix",
    "AverageAccuracy",
    "BackwardTransfer",
    "BarrierAUC",
    "Forgetting",
    "ForwardTransfer",
    "LinearCKA",
    "LossBarrier",
    "MidpointAccuracy",
    "PermutationRecovery",
    "UnitSimilarity",
    "area_under_curve",
    "average_accuracy",
    "backward_transfer",
    "barrier",
    "curve_connectivity",
    "forgetting",
    "forward_transfer",
    "linear_cka",
    "output_cka",
    "path_curvature",
    "permutation_agreement",
    "permutation_recovery",
    "relative_change",
    "unit_similarity",
    "wreath_distance",
]
