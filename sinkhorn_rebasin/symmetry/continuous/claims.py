"""From what the slots of a group answer to the largest symmetry that the numbers allow, still to be proven."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.permutations.slots import MOST_HEADS, merged_parts, parts_of
from sinkhorn_rebasin.symmetry.continuous.null_vectors import Answers

NO_TURN = "no turn of its units leaves the output as it is: permutation"


@dataclass(frozen=True)
class Claim:
    """What a group may be: signs of its slots' parts, and whether any invertible map or only turns."""

    group: str
    linear: bool
    signs: Mapping[Slot, int]

    def symmetry(self, spec: PermutationSpec, fixes_ones: bool, linear: bool) -> ContinuousSymmetry:
        """The claim as a symmetry; turns are their own inverse transpose, so that all of their signs are one."""
        signs = self.signs if linear else dict.fromkeys(self.signs, 1)
        return ContinuousSymmetry(
            spec[self.group],
            "linear" if linear else "orthogonal",
            signed_slots(spec, self.group, signs),
            fixes_ones,
        )

    def with_vectors(self, signs: Mapping[Slot, int]) -> Claim:
        """The claim with more slots."""
        return replace(self, signs={**self.signs, **signs})


def claim_of(
    spec: PermutationSpec, group: str, slots: Sequence[Slot], answers: Answers, rounding: float
) -> Claim | str:
    """The largest symmetry that moves all of these slots, or why there is none."""
    missing = [slot.tensor for slot, known in zip(slots, answers.reached, strict=True) if not known]
    if missing:
        unknown = listed(map(repr, dict.fromkeys(missing)))
        return f"{unknown} took part in the output at no draw, so that nothing is known of it"
    turning = _together(answers.turning(rounding), len(slots))
    if not turning.any():
        return NO_TURN
    left = (turning == 0) & ~answers.silent_to_turns(rounding)
    if left.any():
        moving = listed(repr(slot.tensor) for slot, out in zip(slots, left, strict=True) if out)
        return f"turns do not leave the output as it is where {moving} move: permutation"
    mixed = _together(answers.mixed(rounding), len(slots))
    linear = bool(mixed.any() and ((mixed != 0) | answers.silent_to_mixing(rounding)).all())
    signs = _signs(spec, slots, mixed) if linear else dict.fromkeys(slots, 1)
    return Claim(group, linear, signs)


def _together(vectors: Sequence[NDArray[np.int64]], length: int) -> NDArray[np.int64]:
    """Sets of slots that have nothing in common as one; nothing where they overlap."""
    total = np.zeros(length, dtype=np.int64)
    for vector in vectors:
        if (total[vector != 0] != 0).any():
            return np.zeros(length, dtype=np.int64)
        total += vector
    return total


def _signs(spec: PermutationSpec, slots: Sequence[Slot], mixed: NDArray[np.int64]) -> dict[Slot, int]:
    """Signs of all slots: one that cancels in the output has that of the slot it lies beside, biases have +1."""
    signs = {slot: int(sign) for slot, sign in zip(slots, mixed, strict=True)}
    for slot, sign in list(signs.items()):
        if sign == 0:
            signs[slot] = next((signs[near] for near in _beside(slot, slots) if signs[near]), 1)
    biases = sum(sign for slot, sign in signs.items() if len(spec.shapes[slot.tensor]) == 1)
    rows = sum(sign for slot, sign in signs.items() if slot.axes[0] == 0)
    flip = -1 if (biases or rows) < 0 else 1
    return {slot: flip * sign for slot, sign in signs.items()}


def _beside(slot: Slot, slots: Sequence[Slot]) -> list[Slot]:
    """Slots of the same layer and place first, for example the weight of a bias."""
    layer = slot.tensor.rpartition(".")[0]
    near = [one for one in slots if one.tensor.rpartition(".")[0] == layer and one.axes[0] == slot.axes[0]]
    return [one for one in near if one.layout == slot.layout] + near


def signed_slots(
    spec: PermutationSpec, group: str, signs: Mapping[Slot, int]
) -> tuple[tuple[Slot, int], ...]:
    """The slots under all names of their tensors, whole where their parts agree."""
    first = {name: names[0] for names in spec.tied for name in names}
    by_part = {}
    for slot in spec.slots_of(group):
        for part in parts_of(slot, MOST_HEADS):
            known = replace(part, tensor=first.get(part.tensor, part.tensor))
            by_part[part] = signs.get(known, 0)
    return merged_parts(spec.slots_of(group), by_part, MOST_HEADS)


def is_vector(spec: PermutationSpec, slot: Slot) -> bool:
    """Whether a slot's tensor has one number for each unit, as gains and shifts of norms have."""
    shape = spec.shapes[slot.tensor]
    return math.prod(shape) == slot.layout.blocks * slot.layout.size


def vectors_of(spec: PermutationSpec, slots: Collection[Slot]) -> list[Slot]:
    """The slots on vectors."""
    return [slot for slot in slots if is_vector(spec, slot)]
