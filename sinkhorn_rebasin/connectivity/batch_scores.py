"""What a network scores on every batch: the criterion, what it weighs, and how many labels are right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, State
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, classifies, counted_labels, samples_in
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.networks.task_loss import task_loss


@dataclass(frozen=True)
class BatchScores:
    """Hold the criterion of each batch.

    Attributes:
        losses: (batches,), in float64 on the CPU.
        weights: (batches,), what the mean of each batch was taken over.
        summed: whether the criterion adds up over samples.
        accuracy: of the labels that count; None where that has no meaning.
    """

    losses: Tensor
    weights: Tensor
    summed: bool
    accuracy: float | None

    @property
    def loss(self) -> float:
        """Return the criterion over all batches.

        Raises:
            DataError: no label counts.
        """
        if self.summed:
            return self.losses.sum().item()
        if not bool(self.weights.sum() > 0):
            raise DataError("Expected at least one label that counts but all are ignored or negative.")
        counted = (self.losses * self.weights).where(self.weights > 0, 0.0)
        return (counted.sum() / self.weights.sum()).item()


@torch.no_grad()
@untouched_randomness()
def batch_scores(
    module: nn.Module,
    state: State,
    dataloader: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    batch: BatchAdapter | None = None,
) -> BatchScores:
    """Score each batch at one state.

    The network runs in the mode its module is in.

    Args:
        module: the architecture.
        state: the weights.
        dataloader: batches of (inputs, labels).
        criterion: (outputs, labels) to the loss of a batch.
        batch: a function from a batch to (inputs, labels).

    Raises:
        DataError: no batch, or no pair (inputs, labels).
        LossError: the criterion does not return one number.

    Example:
        >>> batches = [(torch.ones(4, 1), torch.zeros(4, 1)), (torch.ones(1, 1), torch.ones(1, 1))]
        >>> state = {"weight": torch.tensor([[2.0]])}
        >>> scores = batch_scores(nn.Linear(1, 1, bias=False), state, batches, nn.MSELoss())
        >>> scores.losses.tolist(), scores.weights.tolist(), scores.loss
        ([4.0, 1.0], [4.0, 1.0], 3.4)
    """
    losses: list[Tensor] = []
    weights: list[float | Tensor] = []
    correct: list[Tensor] = []
    counted: list[Tensor] = []
    samples = 0
    device = device_of(state)
    for found in batches_in(dataloader, "dataloader"):
        inputs, labels = read_batch(found, batch, network=module, criterion=criterion)
        inputs, labels = move_to((inputs, labels), device)
        outputs = run_at(module, state, inputs)
        own = samples_in(inputs, labels)
        samples += own
        losses.append(_scalar(scored(criterion, outputs, labels)))
        scores, classes = compared(outputs, labels)
        weights.append(batch_weight(scores, classes, criterion, own))
        if classifies(scores, classes):
            known = counted_labels(classes, criterion)
            correct.append((scores.argmax(dim=1) == known).sum())
            counted.append((known >= 0).sum())
    if samples == 0:
        raise DataError("Expected at least one batch with samples but the dataloader is empty.")
    # Stacked on the device first: one transfer at the end instead of a wait in every batch.
    shares = torch.stack([torch.as_tensor(each, device=losses[0].device).double() for each in weights])
    known_all = len(correct) == len(losses) and bool(sum(counted))
    accuracy = torch.stack(correct).sum().item() / torch.stack(counted).sum().item() if known_all else None
    return BatchScores(torch.stack(losses).cpu().double(), shares.cpu(), adds_up(criterion), accuracy)


def _scalar(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise LossError(f"Expected the criterion to return one number per batch but got {found}.")
    return loss.detach().reshape(())
