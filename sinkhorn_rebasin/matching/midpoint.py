"""The task loss halfway between the reference and a re-ordered target, for methods that search by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, NetworkLike, Permutations, StateLike
from sinkhorn_rebasin.connectivity.interpolation import Interpolation
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.matching.pair_of_states import as_network, as_states
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.counting import adds_up, batch_weight, samples_in
from sinkhorn_rebasin.networks.execution import batch_statistics, device_of, run_at
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.networks.randomness import RandomStream, untouched_randomness
from sinkhorn_rebasin.networks.scoring import compared, scored
from sinkhorn_rebasin.networks.task_loss import logits_of, task_loss
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state
from sinkhorn_rebasin.permutations.heads import with_heads


class Midpoint:
    r"""Measure the loss halfway between two networks.

    .. math:: \mathcal C\bigl(\tfrac12 (\pi(\theta_T) + \theta_R)\bigr)

    Batch norm runs on the statistics of each batch, everything else as in evaluation. Data that can be iterated
    only once are kept as a list. The global random state stays as it is, so that a dataloader that shuffles by it
    gives the same order in every pass; one with a generator of its own does not.

    Args:
        reference, target: networks of one architecture, one of them at least a module; neither is changed.
        spec: the symmetries.
        data: batches of (inputs, labels).
        criterion: (outputs, labels) to a scalar; cross entropy where there is none.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        ignore: layers that each network keeps for itself. Halfway they are the reference's, or the target's where it
            alone is a module.

    Raises:
        ArchitectureError, SpecError: when the networks differ or the spec is of another one.
        DataError: without data or without a batch.
        LossError: when the loss is no finite scalar.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.permutations import identity_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(8, 3)
        >>> spec = discover_symmetry(net, x)
        >>> midpoint = Midpoint(net, net, spec, [(x, net(x))], nn.functional.mse_loss)
        >>> midpoint.loss(identity_permutations(spec)) < 1e-12
        True
    """

    def __init__(
        self,
        reference: NetworkLike,
        target: NetworkLike,
        spec: PermutationSpec,
        data: Iterable[Any] | None,
        criterion: Criterion | None = task_loss,
        batch: BatchAdapter | None = None,
        ignore: Sequence[str] = (),
    ) -> None:
        self.reference, self.target, spec = as_states(reference, target, spec, ignore)
        if data is None:
            raise DataError("Expected data, batches of (inputs, labels), but got None.")
        criterion = task_loss if criterion is None else criterion
        self.spec, self.criterion, self.batch = spec, criterion, batch
        self.network = as_network(reference, target)
        self._folded = folded_in(self.network)
        self._mixing = Interpolation(self.network)
        self.data = list(data) if isinstance(data, Iterator) else batches_in(data)
        self.device = device_of(self.reference)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield inputs and labels of every batch.

        They are on the networks' device.
        """
        read = False
        # A dataloader draws from the global random state whenever it is iterated.
        stream = RandomStream()
        with stream.running():
            batches = iter(self.data)
        while True:
            with stream.running():
                try:
                    found = next(batches)
                except StopIteration:
                    break
            read = True
            pair = read_batch(found, self.batch, network=self.network, criterion=self.criterion)
            yield move_to(pair, self.device)
        if not read:
            raise DataError("Expected at least one batch of (inputs, labels) but got none.")

    def batch_loss(self, rebased: StateLike, inputs: Any, labels: Any) -> Tensor:
        """Return the midpoint loss of one batch.

        It is the loss halfway between the reference and this state, differentiable in the state.
        """
        return self._weighted_loss(rebased, inputs, labels)[0]

    def _weighted_loss(self, rebased: StateLike, inputs: Any, labels: Any) -> tuple[Tensor, float]:
        """Return one batch's loss and its weight.

        The weight is what the loss's mean was taken over. It is zero where nothing counts.
        """
        state = with_heads(self._mixing(rebased, self.reference, 0.5), self.reference, self.spec)
        with untouched_randomness(), batch_statistics(self.network, True, self._folded):
            outputs = run_at(self.network, state, inputs)
            loss = scored(self.criterion, outputs, labels)
        scores, classes = compared(outputs, labels)
        weight = float(batch_weight(scores, classes, self.criterion, samples_in(inputs, labels)))
        if not weight > 0:
            return logits_of(outputs).sum() * 0, 0.0
        if loss.numel() != 1 or not bool(torch.isfinite(loss)):
            raise LossError(f"Expected the criterion to give one finite number but got {loss.detach()}.")
        return loss.reshape(()), weight

    @torch.no_grad()
    def loss(self, permutations: Permutations) -> float:
        """Return the midpoint loss over all batches.

        The target has these permutations. All batches count as if they were one.
        """
        rebased = permute_state(self.target, self.spec, permutations)
        found = [self._weighted_loss(rebased, *batch) for batch in self.batches()]
        if adds_up(self.criterion):
            return float(sum(loss for loss, _ in found))
        total = sum(weight for _, weight in found)
        if not total > 0:
            raise DataError("Expected at least one label that counts but all are ignored or negative.")
        return float(sum(loss * weight for loss, weight in found)) / total
