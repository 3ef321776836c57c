"""Barrier, area and midpoint accuracy of a path whose losses arrive batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sinkhorn_rebasin.connectivity.barrier import area_under_curve, barrier, check_positions
from sinkhorn_rebasin.errors import DataError


class PathMetric(Metric):
    """Average the loss at each position over samples.

    A subclass says what is read off the mean path.

    Args:
        positions: how many evenly spaced positions from 0 to 1, or the positions themselves, ascending.
        summed: losses are sums over batches, not means, and are added up.

    Raises:
        DataError: positions that do not ascend, no update before compute, or losses of the wrong shape.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    positions: Tensor
    total: Tensor
    samples: Tensor

    def __init__(
        self, positions: int | Sequence[float] | Tensor = 25, *, summed: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.summed = summed
        if isinstance(positions, int):
            positions = torch.linspace(0, 1, positions)
        row = torch.as_tensor(positions, dtype=torch.get_default_dtype()).detach().clone()
        check_positions(row)
        self.register_buffer("positions", row, persistent=False)
        self.add_state("total", default=torch.zeros_like(row), dist_reduce_fx="sum")
        self.add_state("samples", default=torch.zeros((), dtype=row.dtype), dist_reduce_fx="sum")

    def update(self, losses: Tensor, batch_size: float | Tensor = 1) -> None:
        """Add one batch.

        Args:
            losses: (points,), the mean loss of the batch at each position.
            batch_size: what the mean was taken over: samples, or labels that count; a batch with none of them is
                left out.
        """
        if losses.shape != self.positions.shape:
            raise DataError(
                f"Expected the losses at {self.positions.shape[0]} positions, of shape"
                f" {tuple(self.positions.shape)}, but got {tuple(losses.shape)}."
            )
        weight = torch.as_tensor(batch_size, device=self.total.device).to(self.total)
        losses = losses.detach().to(self.total)
        part = losses if self.summed else losses * weight
        self.total = self.total + torch.where(weight > 0, part, 0.0)
        self.samples = self.samples + weight

    def mean_losses(self) -> Tensor:
        """Return the loss at each position, (points,).

        It is averaged or added up over all that was seen.
        """
        if self.samples == 0:
            raise DataError(f"Expected {type(self).__name__} to see a batch before it is computed.")
        return self.total if self.summed else self.total / self.samples


class LossBarrier(PathMetric):
    """Measure how far mean losses rise above the chord.

    This is max over λ of loss(λ) − [(1−λ)·loss(0) + λ·loss(1)], clipped at 0. The losses are averaged over all
    samples first: the barrier of a mean is not the mean of barriers.

    Args:
        positions: how many evenly spaced positions from 0 to 1, or the positions themselves, ascending.

    Example:
        >>> metric = LossBarrier(positions=3)
        >>> metric.update(torch.tensor([1.0, 4.0, 1.0]), batch_size=10)
        >>> metric.update(torch.tensor([1.0, 0.0, 1.0]), batch_size=30)
        >>> metric.compute().item() == 0.0
        True

    Reference: Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery Ticket
    Hypothesis", 2020.
    """

    def compute(self) -> Tensor:
        """Return the barrier of the mean losses, 0-d."""
        return barrier(self.positions, self.mean_losses())


class BarrierAUC(PathMetric):
    """Measure the area between mean losses and chord.

    Only what lies above the chord counts. It is that of :func:`area_under_curve`: at every position the part above
    the chord is taken, and these heights are added up by the trapezoid rule. Where the losses cross the chord between
    two positions, that is more than the area above the chord of the losses joined by straight lines; the two agree as
    positions get close.

    Args:
        positions: how many evenly spaced positions from 0 to 1, or the positions themselves, ascending.

    Example:
        >>> metric = BarrierAUC(positions=3)
        >>> metric.update(torch.tensor([1.0, 5.0, 1.0]), batch_size=10)
        >>> metric.compute().item() == 2.0
        True

    Reference: Peña, Medeiros, Dubail, Aminbeidokhti, Granger, Pedersoli, "Re-basin via implicit Sinkhorn
    differentiation", 2023.
    """

    def compute(self) -> Tensor:
        """Return the area, a 0-d tensor."""
        return area_under_curve(self.positions, self.mean_losses())


class MidpointAccuracy(Metric):
    """Measure the accuracy of the network at λ=½.

    It is the fraction of samples classified correctly. Negative labels do not count.

    Args:
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        DataError: outputs and labels do not fit, or no update before compute.

    Example:
        >>> metric = MidpointAccuracy()
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
        >>> metric.compute().item()
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("correct", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("samples", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            outputs: (samples, classes), the midpoint's logits or probabilities.
            labels: (samples,), integer classes.
        """
        if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or labels.is_floating_point():
            raise DataError(
                "Expected outputs of shape (samples, classes) and integer labels of shape (samples,) but got"
                f" {tuple(outputs.shape)} and {labels.dtype} of shape {tuple(labels.shape)}."
            )
        self.correct = self.correct + (outputs.argmax(dim=1) == labels).sum()
        self.samples = self.samples + (labels >= 0).sum()

    def compute(self) -> Tensor:
        """Return the accuracy, 0-d, between 0 and 1."""
        if self.samples == 0:
            raise DataError("Expected MidpointAccuracy to see a batch before it is computed.")
        return self.correct / self.samples
