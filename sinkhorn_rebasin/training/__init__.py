"""Training with Lightning; the only folder that imports it."""

from sinkhorn_rebasin.training import continual
from sinkhorn_rebasin.training.barrier_monitor import BarrierMonitor
from sinkhorn_rebasin.training.data_free import data_free_steps
from sinkhorn_rebasin.training.rebasin_module import RebasinModule
from sinkhorn_rebasin.training.temperature_annealing import TemperatureAnnealing
from sinkhorn_rebasin.training.warm_restarts import WarmRestarts

__all__ = [
    "BarrierMonitor",
    "RebasinModule",
    "TemperatureAnnealing",
    "WarmRestarts",
    "continual",
    "data_free_steps",
]
