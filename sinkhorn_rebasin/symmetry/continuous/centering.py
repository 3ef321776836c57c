"""Which slots of a turning group may lose their mean over the units."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.symmetry.continuous.proof import Held, changes_of_outputs
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials


def centered_slots(trials: Trials, symmetry: ContinuousSymmetry) -> tuple[Slot, ...]:
    """The slots whose mean nothing sees, as those that write to a stream that only layer norms read.

    Only groups that fix the ones vector can have them. Each slot is tried alone, and then all together.
    """
    if not symmetry.fixes_ones:
        return ()
    slots = [slot for slot, _ in symmetry.exponents]
    state = Held.of([symmetry]).at(trials.weights())
    changes = changes_of_outputs(trials, state, [centered(state, [slot]) for slot in slots])
    alone = [slot for slot, change in zip(slots, changes, strict=True) if change <= trials.tolerance]
    state = Held.of([symmetry]).at(trials.weights())
    (together,) = changes_of_outputs(trials, state, [centered(state, alone)])
    return tuple(alone) if together <= trials.tolerance else ()


def centered(state: State, slots: Sequence[Slot]) -> State:
    """The weights with the mean over the units taken off these slots, under all names of their tensors."""
    result = dict(state)
    for slot in slots:
        size = slot.layout.size
        projection = torch.eye(size, dtype=torch.float64) - 1 / size
        if slot.layout.blocks > 1:
            projection = projection.expand(slot.layout.blocks, size, size)
        before = result[slot.tensor]
        after = apply_matrices(before, slot, projection).to(before.dtype)
        names = [name for name, tensor in state.items() if tensor is state[slot.tensor]]
        result.update(dict.fromkeys(names, after))
    return result
