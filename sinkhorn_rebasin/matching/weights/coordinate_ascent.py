"""The search of weight matching: one group after the other placed exactly, with all others held."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weights.nested_groups import Proposal, flips_of, place_blocks
from sinkhorn_rebasin.matching.weights.sign_patterns import NO_RESCALING
from sinkhorn_rebasin.matching.weights.similarity import signed_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, rescale_state
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.algebra import block_movement
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns

LEAST_GAIN = 1e-9
"""Of the size of what is added up: less is round-off."""


class CoordinateAscent:
    r"""Move permutations and signs uphill in :math:`\langle \theta_R, \pi(\sigma(\theta_T)) \rangle`.

    Attributes:
        target: the target with the signs found so far.
        permutations: those found so far.
        signs: those found so far, of the target's units in their original order.
    """

    def __init__(
        self,
        reference: State,
        target: State,
        spec: PermutationSpec,
        permutations: Permutations,
        generator: torch.Generator,
        rescaling: RescalingSpec = NO_RESCALING,
    ) -> None:
        self.reference, self.target = reference, target
        self.spec, self.rescaling = spec, rescaling
        self.generator = generator
        self.permutations = dict(permutations)
        self.signs = {
            name: torch.ones(shape, dtype=torch.float64, device="cpu")
            for name, shape in rescaling.shapes(spec, "sign").items()
        }

    def guess(self, groups: Sequence[Group]) -> None:
        """Place these groups once, those to come by invariants.

        The order is random. Groups still to come are seen through what their order cannot change.
            Networks that are already closer as they are, such as two that were tuned from one, stay as they are.
        """
        found, unknown = copy.copy(self), {group.name for group in groups}
        order = self._shuffled(groups)
        while order:
            group = next(one for one in order if one.parent not in unknown)
            found._accept(found._proposal(group, unknown)[0])
            unknown -= {one.name for one in found._standing().placed_with(group)}
            order = [one for one in order if one.name in unknown]
        if found.value(found.spec.shapes) > self.value(self.spec.shapes):
            vars(self).update(vars(found))

    def climb(self, groups: Sequence[Group], max_passes: int) -> Alignment:
        """Place these groups until none can be placed better."""
        objective: list[float] = []
        converged = not groups
        while not converged and len(objective) < max_passes:
            improved = False
            for group in self._shuffled(groups):
                improved |= self._improve(group)
            objective.append(self.value(self.spec.shapes))
            converged = not improved
        return Alignment(
            self.permutations, self.spec, tuple(objective), converged, (), self.signs, self.rescaling
        )

    def value(self, names: Iterable[str], proposal: Proposal | None = None) -> float:
        """Take the inner product over the named tensors.

        As things stand, or as they would with a proposal.
        """
        proposal = proposal or Proposal(self.permutations, {})
        names = sorted(set(names) & self.spec.parameters.keys())
        target = self._flipped(proposal)
        total = 0.0
        for name in names:
            moved = permute_tensor(target[name], self.spec.slots_on(name), proposal.permutations)
            total += float((real_view(self.reference[name]).double() * real_view(moved).double()).sum())
        return total

    def _improve(self, group: Group) -> bool:
        """Place a group while the others are held.

        Returns:
            Whether anything was gained.
        """
        proposal, gain, size = self._proposal(group)
        if gain is not None and not gain > LEAST_GAIN * size:
            return False
        tensors = [
            slot.tensor
            for one in self._standing().placed_with(group)
            for slot in self.spec.slots_of(one.name)
        ]
        if gain is None or len(set(tensors)) < len(tensors):
            # Where a group stands on two axes of one tensor the product is quadratic and the gain only its slope.
            before, after = self.value(tensors), self.value(tensors, proposal)
            if not after - before > LEAST_GAIN * (abs(after) if gain is None else size):
                return False
        self._accept(proposal)
        return True

    def _proposal(self, group: Group, unknown: Iterable[str] = ()) -> tuple[Proposal, float | None, float]:
        """Find the best place of a group.

        Returns:
            The place, what it gains if that is known, and the size of what was added up.
        """
        standing = self._standing(unknown)
        if len(standing.placed_with(group)) > 1:
            return place_blocks(standing, group), None, 0.0
        similarity = signed_similarity(standing, group)
        best, pattern = similarity.max(0)
        blocks = block_movement(self.spec, self.permutations, group)
        current = self.permutations[group.name].reshape(group.blocks, group.size)[blocks].cpu()
        units = hard_assignment(best).cpu()
        gain = float((_picked(best, units) - _picked(similarity[0], current)).sum())
        moved = torch.empty_like(units)
        moved[blocks] = units
        patterns = standing.patterns(group.name)
        flips = {}
        if patterns.generators:
            chosen = flips_of(patterns, _picked(pattern, units), blocks, units)
            flips[group.name] = chosen.reshape(-1, *group.shape)
        proposal = Proposal({**self.permutations, group.name: moved.reshape(group.shape)}, flips)
        return proposal, gain, float(best.abs().sum())

    def _accept(self, proposal: Proposal) -> None:
        self.target = self._flipped(proposal)
        self.permutations = proposal.permutations
        self.signs = {
            **self.signs,
            **{name: self.signs[name] * flips for name, flips in proposal.flips.items()},
        }

    def _flipped(self, proposal: Proposal) -> State:
        if not proposal.flips:
            return self.target
        moved = rescale_state(self.target, self.spec, self.rescaling, signs=proposal.flips)
        return {name: tensor.to(self.target[name].dtype) for name, tensor in moved.items()}

    def _standing(self, unknown: Iterable[str] = ()) -> Standing:
        """Say how things stand, with these groups unknown."""
        return Standing(
            self.reference, self.target, self.spec, self.permutations, frozenset(unknown), self.rescaling
        )

    def _shuffled(self, groups: Sequence[Group]) -> list[Group]:
        drawn = torch.randperm(len(groups), generator=self.generator, device=self.generator.device)
        return [groups[index] for index in drawn.tolist()]


def _picked(table: Tensor, units: Tensor) -> Tensor:
    return table.gather(-1, units[..., None]).squeeze(-1)
