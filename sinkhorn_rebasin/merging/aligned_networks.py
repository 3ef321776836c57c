"""Several networks carried into one order, checked before they are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sinkhorn_rebasin._typing import NetworkLike, State
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.states import check_shares, mean_state, without_mean
from sinkhorn_rebasin.networks.architecture import check_same
from sinkhorn_rebasin.permutations import PermutationSpec


@dataclass(frozen=True)
class AlignedNetworks:
    """Hold several networks in one order, with their shares.

    Attributes:
        networks: as they were given.
        alignments: one a network.
        states: in the order of the first.
        shares: w, one a network, zero or more.
        spec: their symmetries.
    """

    networks: tuple[NetworkLike, ...]
    alignments: tuple[Alignment, ...]
    states: list[State]
    shares: list[float]
    spec: PermutationSpec

    @classmethod
    def of(
        cls,
        networks: Sequence[NetworkLike],
        alignments: Sequence[Alignment],
        shares: Sequence[float] | None = None,
    ) -> AlignedNetworks:
        """Carry networks into one order.

        Raises:
            ArchitectureError: not one alignment and one share a network, shares below zero or that do not add up to
                1, or layers of other shapes that are not kept apart.
        """
        shares = check_shares(shares, len(alignments))
        if len(networks) != len(alignments):
            raise ArchitectureError(
                f"Expected one network an alignment, {len(alignments)}, but got {len(networks)}: pass those that "
                f"were aligned, in the same order."
            )
        if min(shares) < 0:
            raise ArchitectureError(
                f"Expected shares of zero and more to fuse networks by but got {min(shares):g}: the plain mean takes "
                f"others."
            )
        spec = alignments[0].spec
        first = state_of(networks[0], "reference", spec.shapes)
        hint = " Heads of other label sets have no mean: keep them apart by ignore= when the networks are aligned."
        for network in networks[1:]:
            check_same(first, state_of(network, "target", spec.shapes), apart=spec.ignored, hint=hint)
        states = [each.apply(network) for each, network in zip(alignments, networks, strict=True)]
        return cls(tuple(networks), tuple(alignments), states, shares, spec)

    def mean(self) -> State:
        """Return the plain mean.

        Ignored tensors are the first network's own.
        """
        ignored = self.spec.ignored
        mixed = mean_state(
            [{n: t for n, t in s.items() if n not in ignored} for s in self.states],
            self.shares,
            without_mean(self.networks),
        )
        first = state_of(self.networks[0], "reference", self.spec.shapes)
        return {name: first[name] if name in ignored else mixed[name] for name in self.states[0]}

    def module(self, number: int) -> nn.Module:
        """Return a network that runs.

        Raises:
            DataError: it is a state.
        """
        network = self.networks[number]
        if not isinstance(network, nn.Module):
            raise DataError(
                f"Expected a module, to measure on data, but network {number} is {type(network).__name__}: pass what "
                f"its owner measured."
            )
        return network

    def check_one_each(self, data: Sequence[object]) -> None:
        """Raise DataError unless each network has its data."""
        if not isinstance(data, Sequence) or len(data) != len(self.networks):
            got = len(data) if isinstance(data, Sequence) else type(data).__name__
            raise DataError(
                f"Expected one source of data a network, {len(self.networks)} of them, but got {got}: pass "
                f"[batches, batches] where all have the same."
            )
