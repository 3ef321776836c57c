"""What partial merging returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.networks.separate_heads import SeparateHeads, check_kept_apart


@dataclass(frozen=True)
class PartialMerge:
    """Hold a merged network, and which units became one.

    Attributes:
        network: a plain module of the reference's class, with layers of its own sizes. Outputs of heads that are
            kept apart lie one after the other: the reference's, then the target's.
        merges: per group, the units that became one.
        outputs: how many outputs of the heads are the reference's and the target's; both zero where they were
            averaged.
    """

    network: nn.Module
    merges: Mapping[str, UnitMerge]
    outputs: tuple[int, int]
    networks: TwoNetworks = field(repr=False, compare=False)

    @classmethod
    def of(cls, network: nn.Module, merges: Mapping[str, UnitMerge], networks: TwoNetworks) -> PartialMerge:
        """Count the outputs of both networks."""
        sizes = [(0, 0)]
        for name, axis in networks.heads.items():
            sizes.append((networks.states[0][name].shape[axis], networks.states[1][name].shape[axis]))
        return cls(network, merges, sizes[-1], networks)

    def __repr__(self) -> str:
        widths = listed(f"{name} {merge.units} → {merge.size}" for name, merge in self.merges.items())
        heads = f"outputs {self.outputs[0]} + {self.outputs[1]}" if any(self.outputs) else "heads averaged"
        return f"PartialMerge({len(self.merges)} groups: {widths}; {heads})"

    def split(self, outputs: Tensor, axis: int = 1) -> tuple[Tensor, Tensor]:
        """Split outputs into the reference's and the target's.

        >>> from sinkhorn_rebasin.permutations import PermutationSpec
        >>> import torch
        >>> merge = PartialMerge(nn.Identity(), {}, (2, 1), None)
        >>> [part.tolist() for part in merge.split(torch.tensor([[1.0, 2.0, 3.0]]))]
        [[[1.0, 2.0]], [[3.0]]]
        """
        first, second = outputs.split(list(self.outputs), axis)
        return first, second

    def separate(self) -> SeparateHeads:
        """Return the trunk with separate heads.

        It is a :class:`SeparateHeads` with ``"reference"`` and ``"target"``.

        ``separate().alone("target")`` is a plain network with the target's head alone.

        Raises:
            ArchitectureError: heads were averaged.
        """
        heads, state = self.networks.heads, tensors_of(self.network)
        check_kept_apart(heads)
        twins, starts = {}, dict.fromkeys(heads, 0)
        for name, own in zip(("reference", "target"), self.networks.states, strict=True):
            cut = dict(state)
            for tensor, axis in heads.items():
                count = own[tensor].shape[axis]
                cut[tensor] = state[tensor].narrow(axis, starts[tensor], count)
                starts[tensor] += count
            twins[name] = resized(self.network, cut)
        return SeparateHeads(twins, list(heads))

    def with_network(self, network: nn.Module) -> PartialMerge:
        """Return the same merge with other weights."""
        return replace(self, network=network)
