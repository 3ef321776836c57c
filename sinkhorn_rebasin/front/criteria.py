"""What a batch is to a network: example inputs, and the criterion that its labels are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import LABELS, move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.structures import replaced, tensors_in
from sinkhorn_rebasin.networks.task_loss import logits_of, loss_in, task_loss

EXAMPLES = 2


def criterion_for(
    reference: nn.Module,
    first: Any,
    criterion: Criterion | None,
    loss: RebasinLoss | None,
    batch: BatchAdapter | None,
) -> Criterion | None:
    """Decide what measures the loss along a path.

    - A criterion that was given is taken.
    - Else :func:`task_loss`: the loss that the network reports, or cross entropy.
    - Batches without labels, with a loss that was given: None, no path is measured.

    Raises:
        DataError: the batch has no labels, and there is no loss that needs none.
        LossError: the network reports no loss, and returns neither a tensor nor logits.

    Example:
        >>> batch = torch.ones(2, 3), torch.tensor([0, 1])
        >>> criterion_for(nn.Linear(3, 2), batch, None, None, None) is task_loss
        True
    """
    try:
        inputs, labels = read_batch(first, batch, network=reference, criterion=criterion or task_loss)
    except DataError:
        if loss is None:
            raise
        return None
    if criterion is not None:
        return criterion
    outputs = output_of(reference, inputs)
    if labels is None and loss_in(outputs) is None:
        if loss is not None:
            return None
        raise DataError(
            f"Expected batches with labels, or such that {type(reference).__name__} returns its own loss for, but it "
            f"returns {type(outputs).__name__} without one: add labels, or pass loss=."
        )
    if not (isinstance(logits_of(outputs), Tensor) or loss_in(outputs) is not None):
        raise LossError(
            f"Expected criterion=, a function of (outputs, labels), as {type(reference).__name__} returns "
            f"{type(outputs).__name__}, for which there is no default."
        )
    return task_loss


@torch.no_grad()
def output_of(network: nn.Module, inputs: Any) -> Any:
    """Run a network in eval mode on its own device; nothing is changed.

    >>> output_of(nn.Linear(3, 2), torch.ones(1, 3)).shape
    torch.Size([1, 2])
    """
    state = tensors_of(network)
    with untouched_randomness():
        return run_at(evaluation_copy(network), state, move_to(inputs, device_of(state)))


def examples_in(reference: nn.Module, first: Any, batch: BatchAdapter | None) -> ExampleInputs:
    """Return a few inputs of the first batch, on the network's device and without labels.

    Samples are cut off after two where every tensor has them along its first axis.

    Raises:
        DataError: no inputs were found.

    Example:
        >>> examples_in(nn.Linear(3, 2), (torch.ones(9, 3), torch.ones(9)), None).shape
        torch.Size([2, 3])
    """
    try:
        inputs, _ = read_batch(first, batch, network=reference)
    except DataError:
        inputs, _ = read_batch(first, batch, network=reference, labelled=False)
    if isinstance(inputs, Mapping):
        inputs = {name: value for name, value in inputs.items() if name not in LABELS} or inputs
    tensors = list(tensors_in(inputs))
    if tensors and all(tensor.ndim > 0 and len(tensor) == len(tensors[0]) for tensor in tensors):
        inputs = replaced(inputs, lambda tensor: tensor[:EXAMPLES])
    return move_to(inputs, device_of(tensors_of(reference)))
