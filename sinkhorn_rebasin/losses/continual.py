"""The loss that learns a new task on the segment between a network and its re-based self."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, State, StateLike
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.base import Segment
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.permutations.action import dense_gradient


def residual_state(rebasin: Segment, residual: StateLike, at: float = 0.5, hard: bool | None = None) -> State:
    r"""Add a residual to a state of the segment.

    The state is that at a position.

    .. math:: (1-\lambda)\, \pi_P(\theta) + \lambda\, \theta + \delta

    Args:
        rebasin: a re-basin; for continual learning its reference and its target are one network.
        residual: tensor name to a tensor of the same shape, δ; names it lacks have none.
        at: λ, 0 is the rebased target, 1 the reference.
        hard: as in :meth:`SinkhornRebasin.rebased_state`.

    Returns:
        A new dict, differentiable in the scores and the residual.

    Raises:
        LossError: the residual names a tensor the network does not have, or has another shape.
    """
    state = rebasin.state_at(at, hard)
    for name, value in residual.items():
        if name not in state or state[name].shape != value.shape:
            found = tuple(state[name].shape) if name in state else "no such tensor"
            raise LossError(
                f"Expected a residual with the names and shapes of the network's tensors but got {name!r} of shape "
                f"{tuple(value.shape)}, where the network has {found}."
            )
    # Embeddings may give sparse gradients, which are nothing to clip or to decay weights with.
    return {
        name: dense_gradient(value + residual[name]) if name in residual else value
        for name, value in state.items()
    }


class ContinualLoss:
    r"""Evaluate the task loss near a network's re-based self.

    It is that halfway between the network and its re-based self, plus a residual.

    .. math:: \mathcal C\bigl(\tfrac12 (\pi_P(\theta) + \theta) + \delta\bigr)

    on the new task and, when samples are replayed, on them too. :math:`\theta` and :math:`\pi_P(\theta)` are one
    function, so the old tasks live at both ends of the segment; the new one is learned between them. It is a
    function of what it is given: it holds no parameter and no optimiser, and changes nothing.

    Args:
        criterion: (outputs, labels) to a scalar; cross entropy by default; labels are passed on as they are.
        replay_weight: factor of the replayed samples' loss; replayed samples are pairs (inputs, labels).
        at: λ, the midpoint as published.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> rebasin = SinkhornRebasin(net, net, torch.randn(2, 4), start="identity").eval()
        >>> residual = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
        >>> batch = torch.randn(16, 4), torch.randint(3, (16,))
        >>> loss = ContinualLoss(nn.functional.cross_entropy)(rebasin, residual, batch)
        >>> torch.allclose(loss, nn.functional.cross_entropy(net(batch[0]), batch[1]))
        True

    Source: Guerrero-Peña, Medeiros, Dubail, Aminbeidokhti, Granger, Pedersoli, "Re-basin via implicit Sinkhorn
    differentiation" (2023).
    """

    def __init__(
        self,
        criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
        *,
        replay_weight: float = 1.0,
        at: float = 0.5,
        batch: BatchAdapter | None = None,
    ) -> None:
        self.criterion = criterion
        self.batch = batch
        self.replay_weight = replay_weight
        self.at = at

    def __call__(self, rebasin: Segment, residual: StateLike, batch: Any, replay: Any = None) -> Tensor:
        """Return the loss of a batch of (inputs, labels).

        The batch is of the new task. Replayed samples, if given, add their own loss.
        """
        state = residual_state(rebasin, residual, self.at)
        network = getattr(rebasin, "reference", None)
        inputs, labels = read_batch(batch, self.batch, network=network, criterion=self.criterion)
        loss = self.criterion(rebasin.run(state, inputs), labels)
        if replay is None:
            return loss
        inputs, labels = read_batch(replay, network=network, criterion=self.criterion)
        return loss + self.replay_weight * self.criterion(rebasin.run(state, inputs), labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.criterion, '__name__', self.criterion)})"


@torch.no_grad()
def consolidated_state(rebasin: Segment, residual: StateLike, alpha: float = 0.8) -> State:
    r"""Return the state that is kept of a task.

    It is :math:`\alpha\,\theta + (1-\alpha)\,\pi_P(\theta) + \delta` with hard permutations.

    Args:
        rebasin: the re-basin of the network with itself.
        residual: tensor name to δ.
        alpha: the share of the network as it was, 0.8 as published.

    Returns:
        A new dict of tensors that share no memory with what was given.

    Raises:
        LossError: α is not between 0 and 1, or the residual does not fit.

    Source: Guerrero-Peña et al. (2023).
    """
    if not 0 <= alpha <= 1:
        raise LossError(f"Expected 0 <= alpha <= 1 but got {alpha}.")
    state = residual_state(rebasin, residual, alpha, hard=True)
    return {name: value.detach().clone() for name, value in state.items()}
