"""From a network and example inputs to its symmetries: permutations and rescalings."""

from sinkhorn_rebasin.symmetry.continuous.canonical import canonicalize
from sinkhorn_rebasin.symmetry.continuous.discovery import discover_continuous, verify_continuous
from sinkhorn_rebasin.symmetry.discovery import discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.discovery import discover_rescaling
from sinkhorn_rebasin.symmetry.rescaling.norm_filters import (
    NormFilter,
    discover_norm_filters,
    normalize_filters,
)
from sinkhorn_rebasin.symmetry.rescaling.normalization import normalize_scales
from sinkhorn_rebasin.symmetry.rules import register_rule
from sinkhorn_rebasin.symmetry.verification.verification import verify_symmetry

__all__ = [
    "NormFilter",
    "canonicalize",
    "discover_continuous",
    "discover_norm_filters",
    "discover_rescaling",
    "discover_symmetry",
    "normalize_filters",
    "normalize_scales",
    "register_rule",
    "verify_continuous",
    "verify_symmetry",
]
