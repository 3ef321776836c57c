"""Constants added to units, taken away or moved on into the biases of the layers that read them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.units_of_slots import filled, unit_rows, with_ties


def without_shift(state: StateLike, shift: Slot) -> State:
    """Copy the state with this shift at zero."""
    return {**state, shift.tensor: filled(state[shift.tensor], shift, 0.0)}


def bias_beside(state: StateLike, weight: str) -> str | None:
    """Name the bias of a layer by its weight.

    None where there is none.

    >>> bias_beside({"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2)}, "0.weight")
    '0.bias'
    """
    start, found, end = weight.rpartition("weight")
    bias = f"{start}bias{end}"
    if not found or bias not in state or state[bias].shape != state[weight].shape[:1]:
        return None
    return bias


def moved_shift(state: StateLike, shift: Slot, readers: Sequence[Slot]) -> State | None:
    r"""Move a shift on into its readers' biases.

    Readers are the linear layers that read it.

    .. math:: b_{\mathrm{shift}} \to 0, \qquad b_k \to b_k + W_k\, b_{\mathrm{shift}}

    Returns:
        A new dict; None when a reader is no linear layer with a bias, or there is none. Whether the function stays
        the same is for the caller to prove: padding and what lies between may forbid it.
    """
    values = unit_rows(state[shift.tensor], shift)
    moved = dict(without_shift(state, shift))
    for slot in readers:
        weight = state[slot.tensor]
        bias = bias_beside(state, slot.tensor)
        if bias is None or slot.axes != (1,):
            return None
        entries = unit_rows(weight, slot).unflatten(2, (slot.layout.width, weight.shape[0], -1)).sum(-1)
        if entries.shape[:2] != values.shape[:2] or values.shape[2] not in (1, entries.shape[2]):
            return None
        moved[bias] = moved[bias] + (entries * values[..., None]).sum((0, 1, 2))
    return moved if readers else None


def center_state(state: StateLike, spec: PermutationSpec, continuous: ContinuousSpec) -> State:
    """Take the units' mean away where nothing sees it.

    It is taken from every such slot.
    """
    moved = dict(state)
    for symmetry in continuous.symmetries:
        for slot in symmetry.centered:
            tensor = moved[slot.tensor]
            moved[slot.tensor] = apply_matrices(tensor, slot, _centering(slot, tensor))
    return with_ties(moved, spec)


def _centering(slot: Slot, like: Tensor) -> Tensor:
    size, blocks = slot.layout.size, slot.layout.blocks
    matrix = torch.eye(size, dtype=like.dtype, device=like.device) - 1 / size
    return matrix if blocks == 1 else matrix.expand(blocks, size, size)
