"""Methods that align two networks, all behind one protocol."""

from sinkhorn_rebasin.matching.activation_matching import activation_matching
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching

__all__ = ["Alignment", "activation_matching", "weight_matching"]
