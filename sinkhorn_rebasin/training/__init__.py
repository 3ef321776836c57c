"""Training with Lightning; the only folder that imports it."""

from sinkhorn_rebasin.training import continual
from sinkhorn_rebasin.training.alternating_curve import AlternatingCurveModule
from sinkhorn_rebasin.training.barrier_monitor import BarrierMonitor
from sinkhorn_rebasin.training.bounded_fit import bounded_fit
from sinkhorn_rebasin.training.carry_module import CarryModule
from sinkhorn_rebasin.training.cosine_annealing import CosineAnnealing
from sinkhorn_rebasin.training.curve_module import CurveModule
from sinkhorn_rebasin.training.data_free import data_free_steps
from sinkhorn_rebasin.training.joint_module import JointRebasinModule
from sinkhorn_rebasin.training.loss_monitor import LossMonitor
from sinkhorn_rebasin.training.rebasin_module import RebasinModule
from sinkhorn_rebasin.training.simplex_module import SimplexModule
from sinkhorn_rebasin.training.step_progress import StepProgress
from sinkhorn_rebasin.training.temperature_annealing import TemperatureAnnealing
from sinkhorn_rebasin.training.warm_restarts import WarmRestarts

__all__ = [
    "AlternatingCurveModule",
    "BarrierMonitor",
    "CarryModule",
    "CosineAnnealing",
    "CurveModule",
    "JointRebasinModule",
    "LossMonitor",
    "RebasinModule",
    "SimplexModule",
    "StepProgress",
    "TemperatureAnnealing",
    "WarmRestarts",
    "bounded_fit",
    "continual",
    "data_free_steps",
]
