"""The loss of the mean of several networks, put right as it will be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, State
from sinkhorn_rebasin.activations import BatchNormReset
from sinkhorn_rebasin.merging import JointRebasin
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.scoring import scored


class LossOfMean:
    """Evaluate the loss of a mean at hard permutations.

    The mean is made once for all batches, and anew where a parameter has changed since.

    Args:
        criterion: (outputs, labels) to a scalar.
        statistics: training batches on which batch norm is measured or REPAIR done; without any neither is.
        repair: do REPAIR.
        shares: of the networks; equal without them.
        batch: a function from a batch to (inputs, labels).

    Example:
        >>> from torch import nn
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> x, labels = torch.randn(16, 4), torch.randint(3, (16,))
        >>> joint, loss = JointRebasin(nets, x), nn.functional.cross_entropy
        >>> torch.allclose(LossOfMean(loss, [])(joint, (x, labels)), loss(joint.merge()(x), labels))
        True
    """

    def __init__(
        self,
        criterion: Criterion,
        statistics: list[Any],
        *,
        repair: bool = False,
        shares: Sequence[float] | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        self.criterion, self.statistics, self.repair = criterion, statistics, repair
        self.shares, self.batch = shares, batch
        self._made: tuple[JointRebasin, list[tuple[int, int]], State] | None = None

    @torch.no_grad()
    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        inputs, labels = read_batch(batch, self.batch, network=rebasin.reference, criterion=self.criterion)
        return scored(self.criterion, rebasin.run(self._mean(rebasin), inputs), labels)

    def _mean(self, joint: JointRebasin) -> State:
        now = [(parameter.data_ptr(), parameter._version) for parameter in joint.parameters()]
        if self._made is None or self._made[0] is not joint or self._made[1] != now:
            self._made = joint, now, self._put_right(joint)
        return self._made[2]

    def _put_right(self, joint: JointRebasin) -> State:
        if self.repair:
            return tensors_of(joint.merge(self.shares, repair=self.statistics, batch=self.batch))
        state = joint.state_at(self.shares, hard=True)
        if not self.statistics:
            return state
        return BatchNormReset(self.statistics, batch=self.batch)(joint.reference, state)
