"""The segment between a rebased target and its reference: its states, its networks, and the way to run them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, Permutations, State
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.connectivity.interpolation import Interpolation
from sinkhorn_rebasin.connectivity.statistics import moving_statistics
from sinkhorn_rebasin.networks.pair import NetworkPair
from sinkhorn_rebasin.permutations import PermutationSpec


class RebasedSegment(NetworkPair):
    """Run and build the networks between a rebased target and the reference.

    A subclass says where the target lies: see :meth:`rebased_state`.

    Args:
        reference, target: networks that differ in the values of their weights alone.
        example_inputs: with them, averages of a user's own layers are told from other buffers.
    """

    spec: PermutationSpec

    @torch.inference_mode(False)
    def __init__(self, reference: nn.Module, target: nn.Module, example_inputs: ExampleInputs = None) -> None:
        super().__init__(reference, target)
        self._mixing = Interpolation(target, moving_statistics(reference, target, example_inputs))

    def rebased_state(
        self, hard: bool | None = None, *, permutations: Permutations | None = None, own_dtype: bool = True
    ) -> State:
        """Return the target's tensors in their new place."""
        raise NotImplementedError

    def state_at(
        self, at: float | Tensor, hard: bool | None = None, *, permutations: Permutations | None = None
    ) -> State:
        """Return the tensors at a position of the segment.

        Position 0 is the rebased target, 1 the reference.

        Equal tensors pass through bit for bit. Buffers that are no statistics of norm layers, and have no mean, are
        those of the nearer end.

        Args:
            at: λ, a number or a 0-d tensor.
            hard, permutations: as for :meth:`rebased_state`.

        Raises:
            ArchitectureError: when the position is a tensor with more than one entry.

        Warns:
            RebasinWarning: Such buffers differ; they are named once.
        """
        return self._mixing(self.rebased_state(hard, permutations=permutations), self.reference_state(), at)

    def forward(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """Run the rebased target, or the network in between.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ; None is the rebased target itself.
        """
        state = self.rebased_state() if at is None else self.state_at(at)
        return self.run(state, inputs)

    def path(self) -> LinearPath:
        """Return the segment from the rebased target to the reference.

        Hard permutations at λ = 0, the reference at λ = 1.
        """
        states = self.rebased_state(hard=True), self.reference_state()
        return LinearPath(self.to_model(), *states, self._mixing.statistics)

    def to_model(self) -> nn.Module:
        """Return the rebased target as a plain network.

        It has hard permutations: the same function in a new place.
        """
        return self.plain(self.rebased_state(hard=True))

    def merge(
        self,
        at: float = 0.5,
        *,
        repair: Iterable[Any] | None = None,
        rescale_only: bool = False,
        batch: BatchAdapter | None = None,
    ) -> nn.Module:
        """Return the network at a position as a plain one.

        It has hard permutations.

        Args:
            at: λ.
            repair: batches of training data on which its activations are put right: see
                :func:`~sinkhorn_rebasin.repair`.
            rescale_only: put standard deviations right, and leave the means.
            batch: a function from a batch to (inputs, labels), for data that yield something else.
        """
        merged = self.plain(self.state_at(at, hard=True))
        if repair is None:
            return merged
        networks = merged, self.reference, self.to_model()
        return repaired(*networks, self.spec, repair, at=at, rescale_only=rescale_only, batch=batch)
