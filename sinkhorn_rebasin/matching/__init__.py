"""Methods that align two networks, all behind one protocol."""

from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching

__all__ = ["Alignment", "weight_matching"]
