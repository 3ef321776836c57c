"""Carrying what one network learned to another: one file a way, under one protocol."""

from sinkhorn_rebasin.carrying.by_weights import ByWeights
from sinkhorn_rebasin.carrying.carried_update import CarriedUpdate
from sinkhorn_rebasin.carrying.carry import carry, carry_many

__all__ = ["ByWeights", "CarriedUpdate", "carry", "carry_many"]
