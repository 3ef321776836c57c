"""Several networks brought into one basin and merged."""

from sinkhorn_rebasin.merging.both_outputs import BothOutputsLoss
from sinkhorn_rebasin.merging.cycle_error import cycle_error
from sinkhorn_rebasin.merging.ensemble import Ensemble
from sinkhorn_rebasin.merging.fedma import fedma
from sinkhorn_rebasin.merging.fisher_mean import fisher
from sinkhorn_rebasin.merging.fit_layers import fit_layers
from sinkhorn_rebasin.merging.frank_wolfe import match_by_frank_wolfe
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.joint_rebasin import JointRebasin
from sinkhorn_rebasin.merging.known_classes import known_classes, weigh_classes
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.match_many import match_many, merge_many
from sinkhorn_rebasin.merging.match_outputs import match_outputs
from sinkhorn_rebasin.merging.merge_many import match_to_mean
from sinkhorn_rebasin.merging.merge_trunks import merge_trunks
from sinkhorn_rebasin.merging.pairwise_barriers import pairwise_barriers
from sinkhorn_rebasin.merging.partial.partial_merge import PartialMerge
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.merging.pfnm import pfnm
from sinkhorn_rebasin.merging.pleas import pleas
from sinkhorn_rebasin.merging.regmean_plus_plus import regmean_plus_plus
from sinkhorn_rebasin.merging.regression_mean import regmean
from sinkhorn_rebasin.merging.unit_posterior import UnitPrior
from sinkhorn_rebasin.merging.universe import match_to_universe
from sinkhorn_rebasin.merging.zipit import zipit

__all__ = [
    "BothOutputsLoss",
    "Ensemble",
    "FusedState",
    "JointRebasin",
    "ManyAlignment",
    "PartialMerge",
    "UnitMerge",
    "UnitPrior",
    "cycle_error",
    "fedma",
    "fisher",
    "fit_layers",
    "known_classes",
    "match_by_frank_wolfe",
    "match_many",
    "match_outputs",
    "match_to_mean",
    "match_to_universe",
    "merge_many",
    "merge_trunks",
    "pairwise_barriers",
    "pfnm",
    "pleas",
    "regmean",
    "regmean_plus_plus",
    "weigh_classes",
    "zipit",
]
