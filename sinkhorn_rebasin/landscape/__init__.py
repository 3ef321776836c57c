"""Pictures of the loss around networks: planes through several, and random planes around one."""

from sinkhorn_rebasin.landscape.evaluate_plane import PlaneEvaluation, evaluate_plane
from sinkhorn_rebasin.landscape.plane import Plane
from sinkhorn_rebasin.landscape.random_plane import random_plane

__all__ = ["Plane", "PlaneEvaluation", "evaluate_plane", "random_plane"]
