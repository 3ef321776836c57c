"""Adapters of PEFT carried to another base, factors as factors."""

from sinkhorn_rebasin.carrying.adapters.adapter import Adapter
from sinkhorn_rebasin.carrying.adapters.carry_adapter import carry_adapter

__all__ = ["Adapter", "carry_adapter"]
