"""How things stand between two networks while groups are placed."""

from __future__ import annotations

from dataclasses import dataclass

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns

NO_CONTINUOUS = ContinuousSpec()


@dataclass(frozen=True)
class Standing:
    """Hold both networks, their symmetries, and what is known so far.

    Attributes:
        reference: tensors of the network that stays.
        target: tensors of the network that moves, with the signs chosen so far.
        spec: the permutation symmetries of both.
        permutations: those chosen so far, of every group.
        unknown: groups not placed yet: only what their order cannot change counts.
        rescaling: the signs that are free.
        continuous: groups that are turned by orthogonal matrices, which stand among the permutations.
    """

    reference: State
    target: State
    spec: PermutationSpec
    permutations: Permutations
    unknown: frozenset[str] = frozenset()
    rescaling: RescalingSpec = NO_RESCALING
    continuous: ContinuousSpec = NO_CONTINUOUS

    def patterns(self, group: str) -> SignPatterns:
        """List the signs that units of a group may take."""
        return SignPatterns.of(self.rescaling, group)

    def beside(self, slot: Slot) -> tuple[Slot, ...]:
        """List the other slots on a slot's tensor."""
        return tuple(other for other in self.spec.slots_on(slot.tensor) if other != slot)

    def placed_with(self, group: Group) -> list[Group]:
        """List a group and those placed together with its blocks."""
        return [group, *(self.spec.children(group.name) if group.parent is None else [])]
