"""The front door: two networks in, one aligned with the other out."""

from sinkhorn_rebasin.front.align import align
from sinkhorn_rebasin.front.align_many import align_many
from sinkhorn_rebasin.front.answered_images import answered_images
from sinkhorn_rebasin.front.compare import Comparison, Score, compare
from sinkhorn_rebasin.front.ensemble_targets import EnsembleTargets
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.result import AlignmentResult

__all__ = [
    "AlignmentResult",
    "Comparison",
    "EnsembleTargets",
    "Recipe",
    "Score",
    "align",
    "align_many",
    "answered_images",
    "compare",
]
