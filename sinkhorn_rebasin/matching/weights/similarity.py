"""How alike the units of two networks are: inner products of everything they own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin.matching.weights.order_invariants import up_to_order_of
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Group, Slot
from sinkhorn_rebasin.permutations.sign_patterns import negatable

WIDE = 1024
"""Units from which inner products are added up in single precision; what that rounds off is below the least gain."""

CHUNK = 2**16
"""Elements that are widened at a time, which stay in the processor's cache."""


def unit_similarity(standing: Standing, group: Group) -> Tensor:
    """Compare a group's units by everything they own.

    Each slot is read from the target with the permutations of every other slot applied. Of unknown groups only
    what their order cannot change counts.

    Returns:
        Inner products (blocks, size, size) in float64: reference units by target units.
    """
    return signed_similarity(standing, group)[0]


def signed_similarity(standing: Standing, group: Group) -> Tensor:
    r"""Compare a group's units under every sign pattern.

    .. math:: S^p_{ij} = \sum_k p_k\, \langle r_k[i], t_k[j] \rangle, \qquad p_k = \pm 1,

    with k over the slots and p the pattern of the target's unit. The first pattern changes no sign:
    :func:`unit_similarity`.

    Returns:
        (patterns, blocks, size, size) in float64, of wide groups in float32.
    """
    count = len(standing.patterns(group.name).signs)
    wide = group.size >= WIDE
    dtype = torch.float32 if wide else torch.float64
    total = torch.zeros(count, group.blocks, group.size, group.size, dtype=dtype, device="cpu")
    for slot in standing.spec.slots_of(group.name):
        for signs, ours, theirs in unit_rows(standing, slot, standing.beside(slot)):
            if wide:
                for pattern, sign in zip(total, signs.tolist(), strict=True):
                    pattern.baddbmm_(ours.cpu().float(), theirs.cpu().float().mT, alpha=sign)
                continue
            products = torch.bmm(ours, theirs.mT).cpu()
            for pattern, sign in zip(total, signs.tolist(), strict=True):
                pattern.add_(products, alpha=sign)  # in double precision, and no copy of it
    return total


def unit_rows(
    standing: Standing, slot: Slot, others: tuple[Slot, ...]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Read the units of a slot in both networks.

    A slot whose parts change their sign unlike each other comes part by part, one on a buffer not at all.

    Returns:
        By what each sign pattern multiplies the units (patterns,), and the units of the reference and the target,
        (blocks, size, elements).
    """
    if slot.tensor not in standing.spec.compared:
        return
    patterns = standing.patterns(slot.group)
    unknown = [other for other in others if other.group in standing.unknown]
    free = negatable(standing.rescaling, unknown)
    pair = up_to_order_of(standing, slot.tensor, others, negatable=free)
    if unknown and not free and patterns.negates(slot):
        turned = {slot.tensor: -standing.target[slot.tensor]}
        negated = up_to_order_of(replace(standing, target=turned), slot.tensor, others)[1]
    for part in patterns.parts(slot):
        # What its neighbours' signs can make up for says nothing of its own.
        signs = torch.ones(len(patterns.signs), dtype=torch.float64) if free else patterns.on(part)
        ours, theirs = (units_of(tensor, part) for tensor in pair)
        if unknown and bool((signs < 0).any()):
            # Negated values stand in another order once they are sorted.
            yield (signs > 0).double(), ours, theirs
            yield (signs < 0).double(), ours, units_of(negated, part)
        else:
            yield signs, ours, theirs


def units_of(tensor: Tensor, slot: Slot) -> Tensor:
    """Read what each unit owns in a tensor.

    Returns:
        (blocks, size, elements), real and not in half precision.
    """
    layout = slot.layout
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(math.prod(front.shape[: len(slot.axes)]), -1)
    if not layout.is_whole_axis(len(flat)):
        flat = flat[torch.from_numpy(layout.table()).reshape(-1).to(tensor.device)]
    units = real_view(flat.reshape(layout.blocks, layout.size, -1)).flatten(2)
    return units if units.dtype == torch.float64 else units.float()


def inner_product(first: Tensor, second: Tensor) -> float:
    """Take an inner product in double precision.

    >>> inner_product(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    11.0
    """
    pair = (real_view(tensor.detach()).reshape(-1).split(CHUNK) for tensor in (first, second))
    return float(sum(torch.dot(one.double(), two.double()).item() for one, two in zip(*pair, strict=True)))
