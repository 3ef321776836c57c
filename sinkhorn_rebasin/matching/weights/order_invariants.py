"""Telling units apart before anything else is matched: by what no order of the other units can change."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import permute_tensor


def up_to_order_of(
    standing: Standing, tensor: str, others: tuple[Slot, ...], negatable: Collection[Slot] = ()
) -> tuple[Tensor, Tensor]:
    r"""Bring one tensor of both networks into a comparable order.

    Slots of known groups are put into the order found for them. Along those of unknown groups both tensors are
    sorted. By the rearrangement inequality an inner product of sorted values,

    .. math:: \max_\pi \sum_i a_i b_{\pi(i)} = \sum_i a_{(i)} b_{(i)},

    is what two units have in common under the order of the others that suits this pair best.

    Args:
        standing: both networks, the orders found, and the groups still unknown.
        tensor: its name.
        others: the slots on it along which units are brought into order.
        negatable: those of them whose sign is free. Of unknown groups their absolute values are sorted, which are
            the same for an order with signs.

    Returns:
        The reference's and the target's tensor.
    """
    unknown = standing.unknown
    reference, target = standing.reference[tensor], standing.target[tensor]
    known = tuple(slot for slot in others if slot.group not in unknown)
    target = permute_tensor(target, known, standing.permutations)
    for slot in others:
        if slot.group in unknown:
            if slot in negatable:
                reference, target = reference.abs(), target.abs()
            reference, target = sorted_along(reference, slot), sorted_along(target, slot)
    return reference, target


def sorted_along(tensor: Tensor, slot: Slot) -> Tensor:
    """Sort a slot's units by value, each position alone.

    Real and imaginary parts are sorted apart.

    >>> from sinkhorn_rebasin.permutations import Layout
    >>> sorted_along(torch.tensor([[3, 1, 2], [0, 2, 1]]), Slot("a", "w", (1,), Layout(1, 3))).tolist()
    [[1, 2, 3], [0, 1, 2]]
    """
    if tensor.is_complex():
        return torch.complex(sorted_along(tensor.real, slot), sorted_along(tensor.imag, slot))
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(-1, *front.shape[len(slot.axes) :])
    table = torch.from_numpy(slot.layout.table()).to(tensor.device)
    values = flat[table].sort(dim=1).values
    done = flat.index_copy(0, table.reshape(-1), values.reshape(-1, *flat.shape[1:]))
    return done.reshape(front.shape).movedim(tuple(range(len(slot.axes))), slot.axes)
