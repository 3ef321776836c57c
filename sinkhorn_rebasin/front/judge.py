"""What decides which alignment is better: the path on held-out data, or a loss on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Heads, StateLike
from sinkhorn_rebasin.activations import BatchNormReset, RepairAlongPath
from sinkhorn_rebasin.connectivity import LinearPath, PathEvaluation, evaluate_path
from sinkhorn_rebasin.connectivity.batch_scores import batch_scores
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare, scores_along
from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.front.gain import Gain, PartLosses, gain
from sinkhorn_rebasin.front.parts import Parts, parts_for
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.losses.base import losses_on, mean_loss
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations
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

    def of_rebasin(self, rebasin: SinkhornRebasin) -> Verdict:
        """Judge a re-basin at its hard permutations."""
        if self.criterion is None:
            assert self.loss is not None
            return mean_loss(rebasin, self.loss, self.validation, batch=self.batch)
        return self._evaluate(rebasin.path(), rebasin.to_model())

    def of_state(self, rebased: StateLike) -> PathEvaluation:
        """Evaluate the path from a place of the target to the reference."""
        path = self._path_from(rebased)
        return self._evaluate(path, path.module_at(0.0))

    def of_start(self, start: Alignment) -> Verdict:
        """Judge an alignment that a fit may start from."""
        if self.criterion is None:
            return self.of_rebasin(self._rebasin_at(start))
        return self.of_state(start.apply(self.target))

    def gain(self, before: Alignment, after: Alignment | SinkhornRebasin, keep: PathFigure) -> Gain:
        """Return by how much an alignment is better.

        Args:
            before, after: alignments, or a re-basin at its hard permutations.
            keep: the figure of the path that is compared.
        """
        return gain(self.on_parts(before, keep), self.on_parts(after, keep))

    @cached_property
    def parts(self) -> Parts:
        """Parts of the held-out batches, on which gains are measured."""
        stays = Alignment(identity_permutations(self.spec), self.spec)
        if self.criterion is None:
            rebasin = self._rebasin_at(stays)
            return parts_for(self.validation, lambda parts: self._losses(rebasin, parts).mean)
        module, state, criterion = evaluation_copy(self.runs), tensors_of(self.runs), self.criterion
        return parts_for(
            self.validation,
            lambda parts: batch_scores(module, state, parts.batches, criterion, batch=self.batch).loss,
        )

    @property
    def runs(self) -> nn.Module:
        """The network that the path runs, with its own head."""
        return self.target if self.heads == "target" and self.spec.ignored else self.reference

    @cached_property
    def batch_norm(self) -> BatchNormReset:
        """Measures batch norm anew, where a network has one."""
        return BatchNormReset(self.statistics, batch=self.batch)

    def _rebasin_at(self, start: Alignment) -> SinkhornRebasin:
        return SinkhornRebasin(
            *(self.reference, self.target),
            spec=self.spec,
            start=start,
            rescale=start.rescaling or False,
            symmetry=start.continuous or "permutation",
            check=False,
            heads=self.heads,
        )

    def _path_from(self, rebased: StateLike) -> LinearPath:
        end = tensors_of(self.reference)
        kept = rebased if self.heads == "target" else end
        return LinearPath(self.runs, *(with_heads(state, kept, self.spec) for state in (rebased, end)))

    def _prepare(self, start: nn.Module) -> Prepare | None:
        """Return what puts every network of a path right."""
        if not self.repair:
            return self.batch_norm if self.statistics else None
        return RepairAlongPath(self.reference, start, self.spec, self.statistics, batch=self.batch)

    def _evaluate(self, path: LinearPath, start: nn.Module) -> PathEvaluation:
        assert self.criterion is not None
        options: dict[str, Any] = {"prepare": self._prepare(start), "batch": self.batch}
        return evaluate_path(path, self.validation, self.criterion, points=self.points, **options)

    def on_parts(
        self,
        found: Alignment | SinkhornRebasin,
        keep: PathFigure,
        convert: Callable[[Any], Any] = lambda batch: batch,
    ) -> PartLosses:
        """Return the figure of a path, or the loss, on every part.

        Args:
            found: what is judged.
            keep: the figure.
            convert: from a batch to one that a Trainer's networks take.
        """
        batches = [convert(each) for each in self.parts.batches]
        if self.criterion is None:
            rebasin = self._rebasin_at(found) if isinstance(found, Alignment) else found
            return self._losses(rebasin, Parts(batches, self.parts.shares))
        if isinstance(found, Alignment):
            path = self._path_from(found.apply(self.target))
            start = path.module_at(0.0)
        else:
            path, start = found.path(), found.to_model()
        positions = torch.linspace(0, 1, self.points, dtype=torch.float64, device="cpu")
        options: dict[str, Any] = {"prepare": self._prepare(start), "batch": self.batch}
        scores = scores_along(path, positions.tolist(), batches, self.criterion, **options)
        weights = scores[0].weights
        means = torch.stack([each.losses for each in scores])
        means = means / weights if scores[0].summed else means
        shares = shares_of_positions(positions, (means * weights).nan_to_num().sum(1) / weights.sum(), keep)
        return PartLosses(shares @ means, weights)

    def _losses(self, rebasin: SinkhornRebasin, parts: Parts) -> PartLosses:
        assert self.loss is not None
        values = losses_on(rebasin, self.loss, parts.batches, batch=self.batch)
        return PartLosses(torch.tensor(values, dtype=torch.float64), parts.shares)


def shares_of_positions(positions: Tensor, losses: Tensor, keep: PathFigure) -> Tensor:
    """Return how much each position counts in a figure of the path.

    The barrier counts where it is highest, less the chord there.

    Args:
        positions, losses: of the path.
        keep: the figure.

    >>> positions, losses = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0])
    >>> [float(shares_of_positions(positions, losses, keep) @ losses) for keep in ("mean", "midpoint", "barrier")]
    [3.0, 5.0, 3.0]
    """
    if keep == "mean":
        return torch.full_like(positions, 1 / len(positions))
    if keep == "midpoint":
        return (positions == 0.5).to(positions)
    shares = torch.zeros_like(positions)
    rises = losses - (1 - positions) * losses[0] - positions * losses[-1]
    highest = int(rises.argmax())
    shares[highest] += 1
    shares[0] -= 1 - positions[highest]
    shares[-1] -= positions[highest]
    return shares


def height(verdict: Verdict, keep: PathFigure = "mean") -> float:
    """Return a figure of a path, or the loss.

    It is infinite where it is not finite.

    >>> height(2.0), height(float("nan"))
    (2.0, inf)
    """
    value = verdict.figure(keep) if isinstance(verdict, PathEvaluation) else verdict
    return value if math.isfinite(value) else math.inf
