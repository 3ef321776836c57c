"""Methods that align two networks, all behind one protocol."""

from sinkhorn_rebasin.matching.across_widths.transport_across_widths import ot_fusion_across_widths
from sinkhorn_rebasin.matching.across_widths.widening import widen_into
from sinkhorn_rebasin.matching.activation_matching import activation_matching
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.greedy_cosine import greedy_cosine
from sinkhorn_rebasin.matching.optimal_transport import ot_fusion
from sinkhorn_rebasin.matching.simulated_annealing import simulated_annealing
from sinkhorn_rebasin.matching.straight_through import straight_through
from sinkhorn_rebasin.matching.weight_matching import weight_matching

__all__ = [
    "Alignment",
    "activation_matching",
    "greedy_cosine",
    "ot_fusion",
    "ot_fusion_across_widths",
    "simulated_annealing",
    "straight_through",
    "weight_matching",
    "widen_into",
]
