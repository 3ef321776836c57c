"""What a batch is to a network: example inputs, and the criterion that its labels are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
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

EXAMPLES = 2


def own_loss(outputs: Any, labels: Any) -> Tensor:
    """Return the loss that a network computed itself, ``outputs.loss``.

    Networks of Hugging Face compute one when labels are among their inputs.

    Raises:
        LossError: the outputs hold none.

    Example:
        >>> own_loss({"loss": torch.tensor(2.0)}, None).item()
        2.0
    """
    found = loss_in(outputs)
    if found is None:
        raise LossError(
            f"Expected the network to return its own loss in every batch but got {type(outputs).__name__} without "
            f"one: pass criterion=, or labels in every batch."
        )
    return found.mean()


def loss_in(outputs: Any) -> Tensor | None:
    """Return the entry or attribute ``loss`` of outputs, if it is a tensor.

    >>> loss_in(torch.ones(2)) is None
    True
    """
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) else None


def criterion_for(
    reference: nn.Module,
    first: Any,
    criterion: Criterion | None,
    loss: RebasinLoss | None,
    batch: BatchAdapter | None,
) -> Criterion | None:
    """Decide what measures the loss along a path.

    - A criterion that was given is taken.
    - Dictionaries with labels, which the network takes and answers with a loss: its own loss.
    - Other batches with labels: cross entropy.
    - Batches without labels, with a loss that was given: None, no path is measured.

    Raises:
        DataError: the batch has no labels, and there is no loss that needs none.
        LossError: the network returns no tensor, for which cross entropy would be.

    Example:
        >>> batch = torch.ones(2, 3), torch.tensor([0, 1])
        >>> criterion_for(nn.Linear(3, 2), batch, None, None, None) is F.cross_entropy
        True
    """
    try:
        inputs, _ = read_batch(first, batch, network=reference, criterion=criterion)
    except DataError:
        if loss is None:
            raise
        return None
    if criterion is not None:
        return criterion
    outputs = output_of(reference, inputs)
    named = isinstance(inputs, Mapping) and any(name in inputs for name in LABELS)
    if named and loss_in(outputs) is not None:
        return own_loss
    if not isinstance(outputs, Tensor):
        raise LossError(
            f"Expected criterion=, a function of (outputs, labels), as {type(reference).__name__} returns "
            f"{type(outputs).__name__}, for which there is no default."
        )
    read_batch(first, batch, network=reference, criterion=F.cross_entropy)
    return F.cross_entropy


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
