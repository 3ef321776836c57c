"""Telling units apart before anything else is matched: by what no order of the other units can change."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import permute_tensor

LONG, GROWTH = 256, 1.25
"""Sorted values from which steps take their place, and how much longer each step is than the one nearer its end."""


def up_to_order_of(
    standing: Standing, tensor: str, others: tuple[Slot, ...], negatable: Collection[Slot] = ()
) -> tuple[Tensor, Tensor]:
    r"""Bring a tensor of both into comparable order.

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
    long = [slot for slot in others if slot.group in unknown and _is_long_axis(reference, slot)]
    for axis in {slot.axes[0] for slot in long}:
        reference, target = in_steps(reference, axis), in_steps(target, axis)
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
    layout = slot.layout
    if layout.blocks * layout.width == 1 and layout.is_whole_axis(len(flat)):
        done = _sorted(flat.movedim(0, -1)).movedim(-1, 0)
    else:
        table = torch.from_numpy(layout.table()).to(tensor.device)
        values = _sorted(flat[table].movedim(1, -1)).movedim(-1, 1)
        done = flat.index_copy(0, table.reshape(-1), values.reshape(-1, *flat.shape[1:]))
    return done.reshape(front.shape).movedim(tuple(range(len(slot.axes))), slot.axes)


def in_steps(tensor: Tensor, axis: int) -> Tensor:
    r"""Read sorted values in steps that are short at the ends.

    .. math:: \frac{1}{\sqrt{|B|}} \sum_{i \in B} a_{(i)} \quad\text{for every step } B

    These are coordinates in an orthonormal basis of step functions, near which sorted values lie: inner products
    stay what they are, but for what differs inside a step. At both ends, where values lie far apart, each step is a
    value or two.

    Returns:
        The tensor with an entry a step along the axis.

    Example:
        >>> values = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0)).sort().values
        >>> steps = in_steps(values, 1)
        >>> steps.shape[1] < 100, torch.allclose(steps @ steps.T, values @ values.T, rtol=1e-2)
        (True, True)
    """
    lengths = torch.from_numpy(_lengths(tensor.shape[axis]))
    tensor = tensor.movedim(axis, -1)
    ends = lengths.cumsum(0) - 1
    sums = tensor.cumsum(-1, dtype=torch.float64)[..., ends.to(tensor.device)]
    sums = sums.diff(dim=-1, prepend=torch.zeros_like(sums[..., :1]))
    return (sums / lengths.sqrt().to(tensor.device)).to(tensor.dtype).movedim(-1, axis)


@cache
def _lengths(count: int) -> np.ndarray:
    """Compute the lengths of the steps.

    They are one at either end, and grow towards the middle.
    """
    half, left, length = [], count // 2, 1.0
    while left:
        half.append(min(left, math.floor(length)))
        left, length = left - half[-1], length * GROWTH
    return np.array([*half, *[1] * (count % 2), *half[::-1]])


def _is_long_axis(tensor: Tensor, slot: Slot) -> bool:
    """Tell whether a slot fills a long axis.

    Its values are real.
    """
    if len(slot.axes) > 1 or tensor.is_complex() or tensor.dtype not in (torch.float32, torch.float64):
        return False
    layout, length = slot.layout, tensor.shape[slot.axes[0]]
    return layout.size >= LONG and layout.blocks * layout.width == 1 and layout.is_whole_axis(length)


def _sorted(values: Tensor) -> Tensor:
    """Sort along the last axis.

    On the processor NumPy does it in a tenth of the time.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.detach().contiguous().numpy(), axis=-1))
