"""From a network and example inputs to its permutation symmetries."""

from sinkhorn_rebasin.symmetry.discovery import discover_symmetry
from sinkhorn_rebasin.symmetry.verification import verify_symmetry

__all__ = ["discover_symmetry", "verify_symmetry"]
