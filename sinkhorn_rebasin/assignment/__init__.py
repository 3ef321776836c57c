"""Score matrix to soft or hard permutation: tensors only, no networks."""

from sinkhorn_rebasin.assignment.by_size import sinkhorn_by_size
from sinkhorn_rebasin.assignment.hungarian import hard_assignment
from sinkhorn_rebasin.assignment.sinkhorn import SinkhornResult, sinkhorn
from sinkhorn_rebasin.assignment.temperature import TemperatureSchedule, constant, cosine, geometric, linear

__all__ = [
    "SinkhornResult",
    "TemperatureSchedule",
    "constant",
    "cosine",
    "geometric",
    "hard_assignment",
    "linear",
    "sinkhorn",
    "sinkhorn_by_size",
]
