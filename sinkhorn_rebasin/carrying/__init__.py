"""Carrying what one network learned to another: one file a way, under one protocol."""

from sinkhorn_rebasin.carrying.adapters import Adapter, carry_adapter
from sinkhorn_rebasin.carrying.by_activations import ByActivations
from sinkhorn_rebasin.carrying.by_weights import ByWeights
from sinkhorn_rebasin.carrying.carried_update import CarriedUpdate
from sinkhorn_rebasin.carrying.carry import carry, carry_many
from sinkhorn_rebasin.carrying.distilled import Distilled
from sinkhorn_rebasin.carrying.functional import Functional
from sinkhorn_rebasin.carrying.functional_symmetry import FunctionalSymmetry
from sinkhorn_rebasin.carrying.layer_by_layer import LayerByLayer
from sinkhorn_rebasin.carrying.learned import Learned
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem, Way

__all__ = [
    "Adapter",
    "ByActivations",
    "ByWeights",
    "Carried",
    "CarriedUpdate",
    "CarryProblem",
    "Distilled",
    "Functional",
    "FunctionalSymmetry",
    "LayerByLayer",
    "Learned",
    "Way",
    "carry",
    "carry_adapter",
    "carry_many",
]
