"""Two networks of one architecture, held frozen inside of a module."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Heads, State, StateLike
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.comparison import check_comparable
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy, thawed_copy, traits_of
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.networks.support import check_supported


class NetworkPair(nn.Module):
    """Hold frozen copies of two comparable networks.

    Their weights are buffers. The copies move, are saved and are loaded with the module that holds them. No optimizer
    sees their weights.

    Args:
        reference, target: networks that differ in the values of their weights alone; neither is changed.
        apart: names of tensors that may differ in shape.

    Raises:
        ArchitectureError: when a network is of no supported kind, or a tensor of the two differs in name, shape,
            type or ties; it is named.

    Example:
        >>> pair = NetworkPair(nn.Linear(3, 2), nn.Linear(3, 2))
        >>> list(pair.parameters()), sorted(pair.reference_state())
        ([], ['bias', 'weight'])
    """

    @torch.inference_mode(False)
    def __init__(self, reference: nn.Module, target: nn.Module, *, apart: Collection[str] = ()) -> None:
        super().__init__()
        check_supported(reference)
        check_supported(target)
        check_comparable(reference, target, apart=apart)
        self._traits, self._reference_traits = traits_of(target), traits_of(reference)
        self.reference = frozen_copy(reference)
        self.target = frozen_copy(target)
        self._folded = folded_in(self.target)

    def reference_state(self) -> State:
        """Return the reference's tensors by name."""
        return tensors_of(self.reference)

    def target_state(self) -> State:
        """Return the target's tensors, in their original order."""
        return tensors_of(self.target)

    def run(self, state: State, inputs: ExampleInputs, heads: Heads = "reference") -> Any:
        """Run the architecture at a state.

        Batch norm is in this module's mode. Where heads differ, the network whose head is in the state runs.
        """
        network = self.target if heads == "target" else self.reference
        with batch_statistics(network, on=self.training, folded=self._folded):
            return run_at(network, state, inputs)

    def plain(self, state: StateLike, heads: Heads = "target") -> nn.Module:
        """Copy the target, or the reference, with other tensors.

        The copy is a plain network.
        """
        if heads == "reference":
            return thawed_copy(self.reference, state, self._reference_traits)
        return thawed_copy(self.target, state, self._traits)
