"""Losses on the segment between the rebased target and the reference."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, distributed

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.base import Rebasin
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss


class MidpointLoss:
    r"""Evaluate the task loss at the path's midpoint.

    The network lies halfway between the rebased target and the reference.

    .. math:: \mathcal C\bigl(\tfrac12 (\pi_P(\theta_T) + \theta_R)\bigr)

    Args:
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> rebasin = SinkhornRebasin(a, b, torch.randn(2, 4))
        >>> batch = torch.randn(16, 4), torch.randint(3, (16,))
        >>> MidpointLoss(nn.functional.cross_entropy)(rebasin, batch).backward()
        >>> rebasin.scores["0"].grad.isfinite().all().item()
        True

    Source: Guerrero-Peña et al., "Re-basin via implicit Sinkhorn differentiation" (2023).
    """

    def __init__(self, criterion: Criterion = task_loss, *, batch: BatchAdapter | None = None) -> None:
        self.criterion = criterion
        self.batch = batch

    def __call__(self, rebasin: Rebasin, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        inputs, labels = self.read(rebasin, batch)
        return scored(self.criterion, rebasin(inputs, at=self.position()), labels)

    def read(self, rebasin: Any, batch: Any) -> tuple[Any, Any]:
        """Return the inputs and labels of a batch."""
        network = getattr(rebasin, "reference", None)
        return read_batch(batch, self.batch, network=network, criterion=self.criterion)

    def position(self) -> float:
        """Return λ of the next evaluation."""
        return 0.5

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.criterion, '__name__', self.criterion)})"


class RandomPointLoss(MidpointLoss):
    r"""Evaluate the task loss at random positions.

    A position of the segment is drawn anew for every batch.

    .. math:: \mathcal C\bigl((1-\lambda)\, \pi_P(\theta_T) + \lambda\, \theta_R\bigr),
        \qquad \lambda \sim \mathcal U(\mathrm{low}, \mathrm{high})

    Args:
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        low, high: the range of λ within [0, 1].
        generator: draws λ; without it torch's global random state does.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        across_processes: where several train together, whether each has a λ of its own in a step, which averages
            over more of the segment, or all have that of the first. A generator must be seeded alike in all.

    Raises:
        LossError: when not 0 ≤ low ≤ high ≤ 1, or for another word.

    Source: Guerrero-Peña et al. (2023); the narrow range around the midpoint: Theus et al. (2025).
    """

    def __init__(
        self,
        criterion: Criterion = task_loss,
        low: float = 0.4,
        high: float = 0.6,
        *,
        generator: torch.Generator | None = None,
        batch: BatchAdapter | None = None,
        across_processes: Literal["own", "same"] = "own",
    ) -> None:
        super().__init__(criterion, batch=batch)
        if across_processes not in ("own", "same"):
            raise LossError(f"Expected across_processes to be 'own' or 'same' but got {across_processes!r}.")
        if not 0 <= low <= high <= 1:
            raise LossError(f"Expected 0 <= low <= high <= 1 but got low={low}, high={high}.")
        self.low, self.high, self.generator = low, high, generator
        self.across_processes = across_processes

    def position(self) -> float:
        """Draw a fresh λ."""
        rank, count = _place_among_processes()
        # One number for each process, so that processes that were seeded alike draw different ones, and go on alike.
        drawn = torch.rand(count if self.across_processes == "own" else 1, generator=self.generator)
        if self.across_processes == "same" and count > 1:
            told: list[float | None] = [float(drawn[0])]
            distributed.broadcast_object_list(told, src=0)
            drawn, rank = torch.tensor(told, dtype=torch.float64), 0
        return self.low + (self.high - self.low) * float(drawn[rank if len(drawn) > 1 else 0])


def _place_among_processes() -> tuple[int, int]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
