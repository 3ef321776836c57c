"""Curves through weight space, and evaluating a network along them."""

from sinkhorn_rebasin.connectivity.barrier import area_under_curve, barrier, excess
from sinkhorn_rebasin.connectivity.bent_curves import BezierPath, PolygonPath
from sinkhorn_rebasin.connectivity.curves import Curve, LinearPath, SupportsPath
from sinkhorn_rebasin.connectivity.evaluate_path import evaluate_path, evaluate_state
from sinkhorn_rebasin.connectivity.geodesic import GeodesicPath
from sinkhorn_rebasin.connectivity.learned_complex import LearnedComplex
from sinkhorn_rebasin.connectivity.learned_curve import LearnedCurve
from sinkhorn_rebasin.connectivity.path_result import PathEvaluation
from sinkhorn_rebasin.connectivity.simplex import Simplex
from sinkhorn_rebasin.networks.execution import run_at

__all__ = [
    "BezierPath",
    "Curve",
    "GeodesicPath",
    "LearnedComplex",
    "LearnedCurve",
    "LinearPath",
    "PathEvaluation",
    "PolygonPath",
    "Simplex",
    "SupportsPath",
    "area_under_curve",
    "barrier",
    "evaluate_path",
    "evaluate_state",
    "excess",
    "run_at",
]
