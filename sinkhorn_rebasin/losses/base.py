"""What a loss is to this package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, State, StateLike
from sinkhorn_rebasin.connectivity.interpolation import possibly_infinite
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.networks.architecture import single_precision
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import real_loss
from sinkhorn_rebasin.permutations import PermutationSpec


class Rebasin(Protocol):
    """Describe what losses use of a :class:`SinkhornRebasin`."""

    spec: PermutationSpec

    def reference_state(self) -> State:
        """Return the reference's tensors."""

    def rebased_state(self, hard: bool | None = None, *, own_dtype: bool = True) -> State:
        """Return the target's tensors after the permutations."""

    def scaled_state(self) -> State:
        """Return the target's tensors before the permutations."""

    def __call__(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """Return the output at a position of the segment."""


class Segment(Protocol):
    """Describe what continual learning uses of a re-basin."""

    def state_at(self, at: float | Tensor, hard: bool | None = None) -> State:
        """Return the tensors at a position of the segment."""

    def run(self, state: State, inputs: ExampleInputs) -> Any:
        """Run the network at any state of its architecture."""


class RebasinLoss(Protocol):
    """Take a re-basin and a batch to a scalar."""

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss, differentiable in the scores."""


def checked_loss(loss: Tensor) -> Tensor:
    """Return the loss if gradients can flow from it.

    Raises:
        LossError: when it is no tensor, complex, has more than one element, is NaN or infinite, or has no gradient.

    >>> checked_loss(torch.ones(1, requires_grad=True) * 3).item()
    3.0
    """
    if not isinstance(loss, Tensor):
        raise LossError(f"Expected the loss to be a scalar tensor but got {type(loss).__name__}.")
    if loss.numel() != 1:
        raise LossError(
            f"Expected the loss to be a scalar but got shape {tuple(loss.shape)}: "
            f"reduce it, for example with .mean()."
        )
    if not bool(torch.isfinite(real_loss(loss))):
        raise LossError(
            f"Expected a finite loss but got {loss.item()}. The scores are as they were before this step; "
            f"check the batch and the criterion, or lower the learning rate."
        )
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise LossError(
            "Expected a loss that depends on the scores but no gradient flows from it: is the re-basin in "
            "training mode, and does the loss run it without .detach() or torch.no_grad()?"
        )
    return loss.reshape(())


def mean_loss(
    rebasin: Any, loss: RebasinLoss, batches: Iterable[Any], *, batch: BatchAdapter | None = None
) -> float:
    """Average a loss over batches at hard permutations.

    Every call draws the same random numbers, and leaves the random state and the re-basin's mode as they were.

    Raises:
        DataError: there is no batch.
        LossError: the loss is no number.

    >>> from torch import nn
    >>> rebasin = nn.Identity()
    >>> mean_loss(rebasin, lambda rebasin, batch: torch.tensor(batch), [1.0, 3.0]), rebasin.training
    (2.0, True)
    """
    values = losses_on(rebasin, loss, batches, batch=batch)
    return sum(values) / len(values)


@torch.no_grad()
def losses_on(
    rebasin: Any, loss: RebasinLoss, batches: Iterable[Any], *, batch: BatchAdapter | None = None
) -> list[float]:
    """Return a loss on each batch at hard permutations.

    See :func:`mean_loss`.

    Raises:
        DataError: there is no batch.
        LossError: the loss is no number.

    >>> from torch import nn
    >>> losses_on(nn.Identity(), lambda rebasin, batch: torch.tensor(batch), [1.0, 3.0])
    [1.0, 3.0]
    """
    training, values = rebasin.training, []
    place = next((parameter.device for parameter in rebasin.parameters()), None)
    rebasin.eval()
    with untouched_randomness():
        torch.manual_seed(0)
        try:
            for found in batches:
                given = found if batch is None else read_batch(found, batch, labelled=False)
                value = loss(rebasin, move_to(given, place) if place is not None else given)
                checked_loss(value.nan_to_num() if isinstance(value, Tensor) else value)
                values.append(float(value))
        finally:
            rebasin.train(training)
    if not values:
        raise DataError("Expected at least one batch to take the loss on but got none.")
    return values


def compared_weights(
    moved: StateLike, fixed: StateLike, names: Iterable[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the weights of two networks in single precision.

    Where either weight is infinite, both are zero.

    Infinite weights have no distance: one that stays infinite says nothing of the order of units.

    >>> infinite, finite = torch.tensor([-torch.inf, 1.0]), torch.tensor([-torch.inf, 2.0])
    >>> compared_weights({"w": infinite}, {"w": finite}, ["w"])
    {'w': (tensor([0., 1.]), tensor([0., 2.]))}
    """
    pairs = {name: (single_precision(moved[name]), single_precision(fixed[name])) for name in names}
    odd = possibly_infinite(
        {(name, i): tensor for name, pair in pairs.items() for i, tensor in enumerate(pair)}
    )
    for name in {name for name, _ in odd}:
        infinite = pairs[name][0].isinf() | pairs[name][1].isinf()
        first, second = (tensor.masked_fill(infinite, 0.0) for tensor in pairs[name])
        pairs[name] = first, second
    return pairs
