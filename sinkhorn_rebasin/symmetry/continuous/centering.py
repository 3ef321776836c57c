"""Which slots of a turning group may lose their mean over the units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import apply_matrices, units_first
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.symmetry.continuous.proof import Held, changes_of_outputs
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import gradients_of
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials


def centered_slots(trials: Trials, symmetry: ContinuousSymmetry) -> tuple[Slot, ...]:
    """The slots whose mean nothing sees, as those that write to a stream that only layer norms read.

    Only groups that fix the ones vector can have them. The derivative tells which; a run proves it of all together.
    """
    if not symmetry.fixes_ones:
        return ()
    slots = [slot for slot, _ in symmetry.exponents if slot.tensor in trials.spec.parameters]
    state = Held.of([symmetry]).at(trials.weights(), trials.network)
    names = {slot.tensor for slot in slots}
    gradients = gradients_of(trials.network, state, names, trials.example_inputs, trials.generator) or {}
    unseen = [slot for slot in slots if _sees_no_mean(gradients.get(slot.tensor), slot, trials.rounding)]
    (change,) = changes_of_outputs(trials, state, [centered(state, unseen)], strict=True)
    return tuple(unseen) if change <= trials.tolerance else ()


def _sees_no_mean(gradient: Tensor | None, slot: Slot, rounding: float) -> bool:
    """Whether the output stays when the same is added to all units."""
    if gradient is None:
        return False
    units = units_first(gradient.to_dense(), slot)
    return bool((units.sum(1).abs() <= rounding * units.abs().sum(1).max()).all())


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
