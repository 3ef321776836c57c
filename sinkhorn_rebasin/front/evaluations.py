"""What held-out data say of a fit on the way, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.front.gain import PartLosses
from sinkhorn_rebasin.front.judge import Judge, Verdict
from sinkhorn_rebasin.rebasin import SinkhornRebasin

if TYPE_CHECKING:
    from sinkhorn_rebasin.training import BarrierMonitor


@dataclass(frozen=True)
class Evaluation:
    """Hold what held-out data say after a step of a stage.

    Attributes:
        step: of the stage.
        verdict: of all of them.
        losses: of every part.
    """

    step: int
    verdict: Verdict
    losses: PartLosses


def kept_evaluations(monitor: BarrierMonitor, judge: Judge, keep: PathFigure) -> list[Evaluation]:
    """Return a list that fills while a monitor evaluates.

    Args:
        monitor: of a fit.
        judge: of the same held-out data.
        keep: the figure of the path.
    """
    evaluations: list[Evaluation] = []

    def told(rebasin: SinkhornRebasin, convert: Callable[[Any], Any]) -> None:
        """Keep an evaluation."""
        evaluations.append(Evaluation(*monitor.history[-1], judge.on_parts(rebasin, keep, convert)))

    monitor.told = told
    return evaluations


def figures_of(verdict: Verdict) -> dict[str, Any]:
    """Return what a history holds of a verdict.

    >>> figures_of(0.5)
    {'loss': 0.5}
    """
    if isinstance(verdict, PathEvaluation):
        return {"barrier": verdict.barrier, "midpoint_loss": verdict.midpoint_loss}
    return {"loss": verdict}
