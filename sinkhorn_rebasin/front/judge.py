"""What decides which alignment is better: the path on held-out data, or a loss on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Heads, StateLike
from sinkhorn_rebasin.activations import BatchNormReset, RepairAlongPath
from sinkhorn_rebasin.connectivity import LinearPath, PathEvaluation, evaluate_path
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare
from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.losses.base import mean_loss
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.heads import with_heads
from sinkhorn_rebasin.rebasin import SinkhornRebasin

Verdict: TypeAlias = PathEvaluation | float
"""A path on held-out data, or the loss on them."""


@dataclass(frozen=True)
class Judge:
    """Judge alignments of two networks on held-out data.

    Attributes:
        reference, target: the networks.
        spec: their symmetries.
        validation: held-out batches.
        statistics: training batches on which batch norm is measured or REPAIR done.
        criterion: (outputs, labels) to the loss along the path; None judges by ``loss``.
        loss: ``(rebasin, batch)`` to a scalar, where no path can be measured.
        repair: whether REPAIR puts every network of the path right first; otherwise batch norm is measured anew.
        points: positions on the path.
        batch: a function from a batch to (inputs, labels).
        heads: whose ignored layers the networks of the path have.
    """

    reference: nn.Module
    target: nn.Module
    spec: PermutationSpec
    validation: list[Any]
    statistics: list[Any]
    criterion: Criterion | None
    loss: RebasinLoss | None
    repair: bool
    points: int
    batch: BatchAdapter | None
    heads: Heads = "reference"

    def of_state(self, rebased: StateLike) -> PathEvaluation:
        """Evaluate the path from a place of the target to the reference."""
        end = tensors_of(self.reference)
        kept = rebased if self.heads == "target" else end
        states = (with_heads(state, kept, self.spec) for state in (rebased, end))
        path = LinearPath(self.runs, *states)
        return self._evaluate(path, path.module_at(0.0))

    def of_rebasin(self, rebasin: SinkhornRebasin) -> Verdict:
        """Judge a re-basin at its hard permutations."""
        if self.criterion is None:
            return self._mean_loss(rebasin)
        return self._evaluate(rebasin.path(), rebasin.to_model())

    def of_start(self, start: Alignment) -> Verdict:
        """Judge an alignment that a fit may start from."""
        if self.criterion is not None:
            return self.of_state(start.apply(self.target))
        rescaling = start.rescaling or False
        networks = self.reference, self.target
        rebasin = SinkhornRebasin(
            *networks,
            spec=self.spec,
            start=start,
            rescale=rescaling,
            symmetry=start.continuous or "permutation",
            check=False,
            heads=self.heads,
        )
        return self._mean_loss(rebasin)

    @property
    def runs(self) -> nn.Module:
        """The network that the path runs, with its own head."""
        return self.target if self.heads == "target" and self.spec.ignored else self.reference

    @cached_property
    def batch_norm(self) -> BatchNormReset:
        """Measures batch norm anew, where a network has one."""
        return BatchNormReset(self.statistics, batch=self.batch)

    def _mean_loss(self, rebasin: SinkhornRebasin) -> float:
        assert self.loss is not None
        return mean_loss(rebasin, self.loss, self.validation, batch=self.batch)

    def _evaluate(self, path: LinearPath, start: nn.Module) -> PathEvaluation:
        assert self.criterion is not None
        prepare: Prepare | None = self.batch_norm if self.statistics else None
        if self.repair:
            networks = self.reference, start, self.spec
            prepare = RepairAlongPath(*networks, self.statistics, batch=self.batch)
        return evaluate_path(
            path, self.validation, self.criterion, points=self.points, prepare=prepare, batch=self.batch
        )


def height(verdict: Verdict, keep: PathFigure = "mean") -> float:
    """Return a figure of a path, or the loss.

    It is infinite where it is not finite.

    >>> height(2.0), height(float("nan"))
    (2.0, inf)
    """
    value = verdict.figure(keep) if isinstance(verdict, PathEvaluation) else verdict
    return value if math.isfinite(value) else math.inf
