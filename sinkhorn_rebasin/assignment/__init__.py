"""Score matrix to soft or hard permutation: tensors only, no networks."""

from sinkhorn_rebasin.assignment import temperature
from sinkhorn_rebasin.assignment.batched import sinkhorn_by_size
from sinkhorn_rebasin.assignment.hungarian import hard_assignment
from sinkhorn_rebasin.assignment.sinkhorn import SinkhornResult, sinkhorn
from sinkhorn_rebasin.assignment.sparse.hungarian import sparse_assignment
from sinkhorn_rebasin.assignment.sparse.sinkhorn import SparseSinkhornResult, sparse_sinkhorn
from sinkhorn_rebasin.assignment.temperature import TemperatureSchedule

__all__ = [
    "SinkhornResult",
    "SparseSinkhornResult",
    "TemperatureSchedule",
    "hard_assignment",
    "sinkhorn",
    "sinkhorn_by_size",
    "sparse_assignment",
    "sparse_sinkhorn",
    "temperature",
]
