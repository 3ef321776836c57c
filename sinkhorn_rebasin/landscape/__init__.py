"""Pictures and measures of the loss around networks: planes, and how much it rises when weights move."""

from sinkhorn_rebasin.landscape.evaluate_plane import PlaneEvaluation, evaluate_plane
from sinkhorn_rebasin.landscape.hessian import hessian_top_eigenvalue, hessian_trace
from sinkhorn_rebasin.landscape.local_energy import local_energy
from sinkhorn_rebasin.landscape.plane import Plane
from sinkhorn_rebasin.landscape.random_plane import random_plane
from sinkhorn_rebasin.landscape.trajectory_plane import TrajectoryPlane, trajectory_plane

__all__ = [
    "Plane",
    "PlaneEvaluation",
    "TrajectoryPlane",
    "evaluate_plane",
    "hessian_top_eigenvalue",
    "hessian_trace",
    "local_energy",
    "random_plane",
    "trajectory_plane",
]
