"""Weight matching along continuous symmetries: polar decomposition in the place of assignment."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.rotations.balancing import balanced
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.matching.rotations.polar import best_rotation
from sinkhorn_rebasin.matching.weights.beginning import search_from
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent, final_objective
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    identity_permutations,
    permutation_matrix,
)
from sinkhorn_rebasin.permutations.algebra import block_movement
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, Maps

MOST_ROUNDS = 20


class TurnedWeights:
    """Match two networks by permutations and maps.

    Both networks are first brought into the gauge where writers and readers of each linear group have one Gram
    matrix. There only orthogonal maps are left, whose best choice is a polar factor. The maps found are then carried
    back to the networks as they were given.

    Attributes:
        balanced: the tensors of both networks in that gauge.
        standing: the same without what no rotation moves, and what is known so far.
    """

    def __init__(self, standing: Standing, continuous: ContinuousSpec, watch: Watch | None = None) -> None:
        """Take both networks as given, and their symmetries."""
        check_canonical(standing.reference, continuous, "reference")
        check_canonical(standing.target, continuous, "target")
        self.given, self.spec, self.continuous, self.watch = standing, standing.spec, continuous, watch
        self.turning_spec = turning_spec(self.spec, continuous)
        first, self._from_reference = balanced(in_double(standing.reference), continuous)
        second, self._from_target = balanced(in_double(standing.target), continuous)
        self.balanced = first, second
        first, multiples = without_identity(first, continuous)
        second, others = without_identity(second, continuous)
        self._held = sum(
            len(first[name]) * multiple * others[name]
            for name, multiple in multiples.items()
            if name in self.spec.compared
        )
        discrete = [each for each in standing.rescaling.generators if each.group not in continuous]
        self.standing = Standing(
            first,
            second,
            self.turning_spec,
            with_matrices(self.turning_spec, continuous, identity_permutations(self.turning_spec)),
            rescaling=RescalingSpec(standing.rescaling.groups, tuple(discrete)),
            continuous=continuous,
        )

    def anchored(self, generator: torch.Generator, max_passes: int) -> Alignment:
        """Start from what fixed bases pin down, then alternate.

        Maps inside heads fit whichever stream they meet, and the search ends where they hold it. Where there are
        some, a second start places groups anew as others come in, and whichever ends higher is returned.
        """
        again = torch.Generator(generator.device)
        again.set_state(generator.get_state())
        search = CoordinateAscent(self.standing, generator, self.watch)
        search.anchor(self.turning_spec.groups)
        best = self._climbed(search, max_passes)
        nested = any(symmetry.group.parent is not None for symmetry in self.continuous.symmetries)
        if not nested or (self.watch is not None and self.watch.expired):
            return best
        search = CoordinateAscent(self.standing, again, self.watch)
        search.anchor(self.turning_spec.groups, anew=True)
        return max(best, self._climbed(search, max_passes), key=final_objective)

    def climb_from(
        self, begin: Alignment, generator: torch.Generator, max_passes: int, beat: float = -math.inf
    ) -> Alignment:
        """Start from an alignment of the networks as given, then alternate.

        What would stay below an objective at its pace is given up.
        """
        placed = replace(self.standing, permutations=self.as_balanced(begin))
        return self._climbed(search_from(begin, placed, generator, self.watch), max_passes, beat)

    def _climbed(self, search: CoordinateAscent, max_passes: int, beat: float = -math.inf) -> Alignment:
        found = search.climb(self.turning_spec.groups, min(max_passes, MOST_ROUNDS), beat - self._held)
        return self.as_alignment(
            replace(found, objective=tuple(value + self._held for value in found.objective))
        )

    def as_alignment(self, found: Alignment) -> Alignment:
        """Part matrices from permutations, carried back to the networks."""
        maps = self.as_given(found.permutations)
        permutations = {name: order for name, order in found.permutations.items() if name not in maps}
        return replace(
            found, permutations=permutations, spec=self.spec, maps=maps, continuous=self.continuous
        )

    def as_given(self, found: Permutations) -> Maps:
        r"""Carry orthogonal maps back to the networks as given.

        .. math:: X = M_R^{-1}\, R\, M_T

        with M what balanced each network. Blocks of a nested group stand where they stand in the target.
        """
        maps = {}
        for symmetry in self.continuous.symmetries:
            group = symmetry.group
            rotations = found[group.name].reshape(group.blocks, group.size, group.size)
            blocks = block_movement(self.turning_spec, found, group)
            back, to = (
                balancing[group.name].reshape(rotations.shape)
                for balancing in (self._from_reference, self._from_target)
            )
            whole = torch.empty_like(rotations)
            whole[blocks] = torch.linalg.solve(back, rotations[blocks] @ to[blocks])
            maps[group.name] = whole.reshape(*group.shape, group.size)
        return maps

    def as_balanced(self, begin: Alignment) -> Permutations:
        r"""Carry an alignment of the networks as given over to the balanced ones.

        .. math:: R = \operatorname{polar}(M_R\, X\, M_T^{-1})

        The nearest orthogonal map stands for one that stretches: in balanced networks none that stretches is best.
        """
        everywhere = {**identity_permutations(self.turning_spec), **begin.permutations}
        matrices = with_matrices(self.turning_spec, self.continuous, everywhere)
        for symmetry in self.continuous.symmetries:
            group = symmetry.group
            if group.name not in begin.maps:
                continue
            given = begin.maps[group.name].double().cpu().reshape(group.blocks, group.size, group.size)
            blocks = block_movement(self.turning_spec, matrices, group)
            to, back = (
                balancing[group.name].reshape(given.shape)
                for balancing in (self._from_reference, self._from_target)
            )
            turned = torch.empty_like(given)
            turned[blocks] = torch.linalg.solve(back[blocks], to @ given[blocks], left=False)
            matrices[group.name] = best_rotation(turned, symmetry).reshape(*group.shape, group.size)
        return matrices


def turning_spec(spec: PermutationSpec, continuous: ContinuousSpec) -> PermutationSpec:
    """Give groups the slots that their continuous symmetry moves.

    Rotary units, which cannot be permuted, become groups too.
    """
    groups = [*spec.groups, *(each.group for each in continuous.symmetries if each.group.name not in spec)]
    slots = [slot for slot in spec.slots if slot.group not in continuous]
    slots += [slot for each in continuous.symmetries for slot, _ in each.exponents]
    return replace(spec, groups=tuple(groups), slots=tuple(slots))


def with_matrices(
    spec: PermutationSpec, continuous: ContinuousSpec, permutations: Permutations
) -> dict[str, Tensor]:
    """Write permutations of turned groups as matrices."""
    return {
        name: permutation_matrix(order).double().cpu()
        if name in continuous and not order.is_floating_point()
        else order
        for name, order in permutations.items()
        if name in spec
    }


def without_identity(state: State, continuous: ContinuousSpec) -> tuple[State, dict[str, float]]:
    r"""Take the multiple of the identity off matrices that a group turns on both sides.

    .. math:: \langle A, R B R^\top \rangle = \langle A_0, R B_0 R^\top \rangle + n\, a\, b, \qquad
        A_0 = A - a I, \quad a = \tfrac1n \operatorname{tr} A

    No rotation moves it, but in the slope of the product it would hold every rotation where it is.

    Returns:
        The tensors, and the multiple a of each such matrix by its name.
    """
    moved, multiples = dict(state), {}
    for symmetry in continuous.symmetries:
        size = symmetry.group.size
        whole = [slot for slot, _ in symmetry.exponents if slot.layout.is_whole_axis(size)]
        axes = Counter(slot.tensor for slot in whole if len(slot.axes) == 1)
        for name in (name for name, count in axes.items() if count == 2):
            matrix = moved[name]
            if matrix.shape == (size, size):
                multiples[name] = float(matrix.trace()) / size
                moved[name] = matrix - multiples[name] * torch.eye(
                    size, dtype=matrix.dtype, device=matrix.device
                )
    return moved, multiples


def in_double(state: State) -> State:
    """Widen all real tensors to double precision."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
