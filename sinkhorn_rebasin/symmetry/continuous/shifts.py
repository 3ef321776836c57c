"""Which shifts of a network may move on or vanish; whether each does is for the proof to say."""

from __future__ import annotations

from dataclasses import replace

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, Slot
from sinkhorn_rebasin.permutations.action import units_first
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.gain_folding import generators_of_gain
from sinkhorn_rebasin.permutations.shift_moves import center_state, moved_shift, without_shift
from sinkhorn_rebasin.permutations.slots import MOST_HEADS, parts_of
from sinkhorn_rebasin.permutations.units_of_slots import with_ties
from sinkhorn_rebasin.symmetry.continuous.function_proof import Move


def shifts_of_norms(
    spec: PermutationSpec, continuous: ContinuousSpec, rescaling: RescalingSpec
) -> dict[Slot, list[Slot]]:
    """The shifts beside the gains of norms, each with the slots that read it.

    A shift is scaled as its gain is, and its readers the other way.
    """
    shifts: dict[Slot, list[Slot]] = {}
    for symmetry in continuous.symmetries:
        for gain in symmetry.gains:
            for generator, at in generators_of_gain(rescaling, symmetry.group.name, gain):
                side = dict(generator.exponents)[at]
                readers = [slot for slot, exponent in generator.exponents if exponent * side < 0]
                for slot, exponent in generator.exponents:
                    if exponent * side > 0 and _is_vector(spec, slot) and slot.tensor not in symmetry.gains:
                        shifts[slot] = readers
    return shifts


def norm_shifts(spec: PermutationSpec, continuous: ContinuousSpec, rescaling: RescalingSpec) -> list[Move]:
    """Move the shift of each norm into the biases of what reads it."""
    shifts = shifts_of_norms(spec, continuous, rescaling)
    return [_moving(spec, shift, readers) for shift, readers in shifts.items()]


def unseen_shifts(spec: PermutationSpec, continuous: ContinuousSpec) -> list[Move]:
    """Set biases of linear groups to zero where they are in none of the slots: keys have such a bias."""
    moves = []
    for symmetry in _mixing(continuous):
        places = {(slot.tensor, slot.axes, slot.layout) for slot, _ in symmetry.exponents}
        slots = spec.slots_of(symmetry.group.name) if symmetry.group.name in spec else ()
        for part in (part for slot in slots for part in parts_of(slot, MOST_HEADS)):
            if _is_vector(spec, part) and (part.tensor, part.axes, part.layout) not in places:
                moves.append(_vanishing(spec, part))
    return moves


def silent_shifts(spec: PermutationSpec, continuous: ContinuousSpec, side: int, state: State) -> list[Move]:
    """Set biases that cancel to zero.

    They are on one side of linear groups: those of keys cancel though they turn with their weights.

    Groups with readers on the other side, and those with biases that are zero there already, have none to lose.
    """
    moves = []
    for symmetry in continuous.symmetries:
        if symmetry.kind == "linear" and all(slot.axes == (0,) for slot, _ in symmetry.exponents):
            vectors = [(slot, sign) for slot, sign in symmetry.exponents if _is_vector(spec, slot)]
            nonzero = [
                (slot, sign) for slot, sign in vectors if bool(units_first(state[slot.tensor], slot).any())
            ]
            if len({sign for _, sign in nonzero}) == 2:
                moves += [_vanishing(spec, slot) for slot, sign in nonzero if sign == side]
    return moves


def inner_shifts(spec: PermutationSpec, continuous: ContinuousSpec) -> list[Move]:
    """Move the biases of linear groups into the biases of what reads the group: values have such a bias."""
    moves = []
    for symmetry in _mixing(continuous):
        for slot, side in symmetry.exponents:
            if _is_vector(spec, slot):
                readers = [other for other, exponent in symmetry.exponents if exponent * side < 0]
                moves.append(_moving(spec, slot, readers))
    return moves


def uncentered(spec: PermutationSpec, continuous: ContinuousSpec) -> list[Move]:
    """Center the other matrices of groups that keep the ones: what reads a norm sees no mean."""
    moves = []
    for symmetry in continuous.symmetries:
        if not symmetry.fixes_ones:
            continue
        for slot, _ in symmetry.exponents:
            if slot not in symmetry.centered and not _is_vector(spec, slot):
                alone = ContinuousSpec((replace(symmetry, centered=(slot,)),))
                moves.append(_centering(spec, alone))
    return moves


def _mixing(continuous: ContinuousSpec) -> list[ContinuousSymmetry]:
    return [symmetry for symmetry in continuous.symmetries if symmetry.kind != "orthogonal"]


def _is_vector(spec: PermutationSpec, slot: Slot) -> bool:
    return len(spec.shapes[slot.tensor]) == 1 and slot.tensor in spec.parameters


def _moving(spec: PermutationSpec, shift: Slot, readers: list[Slot]) -> Move:
    def move(state: State) -> State | None:
        moved = moved_shift(state, shift, readers)
        return None if moved is None else with_ties(moved, spec)

    return move


def _vanishing(spec: PermutationSpec, shift: Slot) -> Move:
    return lambda state: with_ties(without_shift(state, shift), spec)


def _centering(spec: PermutationSpec, continuous: ContinuousSpec) -> Move:
    return lambda state: center_state(state, spec, continuous)
