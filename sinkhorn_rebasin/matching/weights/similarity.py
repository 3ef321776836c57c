"""How alike the units of two networks are: inner products of everything they own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.matching.weights.order_invariants import up_to_order_of
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, Slot
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns, negatable


def unit_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    permutations: Permutations,
    unknown: Collection[str] = (),
) -> Tensor:
    """Inner products of a group's units, (blocks, size, size) in float64: reference units by target units.

    Each slot is read from the target with ``permutations`` applied to every other slot, but those of ``unknown``
    groups, of which only what their order cannot change counts.
    """
    return signed_similarity(reference, target, spec, group, permutations, unknown)[0]


def signed_similarity(
    reference: State,
    target: State,
    spec: PermutationSpec,
    group: Group,
    permutations: Permutations,
    unknown: Collection[str] = (),
    rescaling: RescalingSpec = NO_RESCALING,
) -> Tensor:
    r"""The similarity of units under every sign pattern p of the target's unit, (patterns, blocks, size, size).

    .. math:: S^p_{ij} = \sum_k p_k\, \langle r_k[i], t_k[j] \rangle, \qquad p_k = \pm 1,

    with k over the slots. The first pattern changes no sign: :func:`unit_similarity`.
    """
    patterns = SignPatterns.of(rescaling, group.name)
    total = torch.zeros(
        len(patterns.signs), group.blocks, group.size, group.size, dtype=torch.float64, device="cpu"
    )
    for slot in spec.slots_of(group.name):
        others = tuple(other for other in spec.slots_on(slot.tensor) if other != slot)
        for signs, ours, theirs in unit_rows(
            reference, target, spec, slot, others, permutations, unknown, rescaling
        ):
            total += signs[:, None, None, None] * torch.bmm(ours, theirs.mT).double().cpu()
    return total


def unit_rows(
    reference: State,
    target: State,
    spec: PermutationSpec,
    slot: Slot,
    others: tuple[Slot, ...],
    permutations: Permutations,
    unknown: Collection[str],
    rescaling: RescalingSpec,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The units of a slot in both networks, (blocks, size, elements), and by what each sign pattern multiplies them.

    A slot whose parts change their sign unlike each other comes part by part, one on a buffer not at all.
    """
    if slot.tensor not in spec.parameters:
        return
    patterns = SignPatterns.of(rescaling, slot.group)
    free = negatable(rescaling, (other for other in others if other.group in unknown))
    pair = up_to_order_of(
        others, reference[slot.tensor], target[slot.tensor], permutations, unknown, negatable=free
    )
    for part in patterns.parts(slot):
        # What its neighbours' signs can make up for says nothing of its own.
        signs = torch.ones(len(patterns.signs), dtype=torch.float64) if free else patterns.on(part)
        ours, theirs = (units_of(tensor, part) for tensor in pair)
        yield signs, ours, theirs


def units_of(tensor: Tensor, slot: Slot) -> Tensor:
    """Everything each unit of a slot owns in a tensor, (blocks, size, elements), real and not in half precision."""
    layout = slot.layout
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(math.prod(front.shape[: len(slot.axes)]), -1)
    if not layout.is_whole_axis(len(flat)):
        flat = flat[torch.from_numpy(layout.table()).reshape(-1).to(tensor.device)]
    units = real_view(flat.reshape(layout.blocks, layout.size, -1)).flatten(2)
    return units if units.dtype == torch.float64 else units.float()
