"""One tensor of two networks, laid out so that soft permutations act on it by single products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.slots import Slot


@dataclass
class LaidOutWeight:
    """Hold one tensor of both networks with its units in front, and those of a second group at the end.

    Attributes:
        groups: the group in front, and the one at the end if there is one.
        order: the axes as they are laid out.
        shape: of the tensor with its axes so.
        target, reference: (n, k, m), or (n, k) with one group.
    """

    groups: tuple[str, ...]
    order: tuple[int, ...]
    shape: torch.Size
    target: Tensor
    reference: Tensor

    def laid_out(self, tensor: Tensor) -> Tensor:
        """Bring a tensor of the network into this order."""
        return tensor.permute(self.order).reshape(self.target.shape)

    def restored(self, tensor: Tensor) -> Tensor:
        """Bring it back, in memory as the network has it."""
        return self.viewed(tensor).contiguous()

    def viewed(self, tensor: Tensor) -> Tensor:
        """Show it with the axes of the network."""
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return tensor.reshape(self.shape).permute(back)

    @property
    def rows_group(self) -> str | None:
        """Name the group on the first axis."""
        return self._group_on(0)

    @property
    def columns_group(self) -> str | None:
        """Name the group on the second axis."""
        return self._group_on(1)

    def _group_on(self, axis: int) -> str | None:
        return dict(zip((self.order[0], self.order[-1]), self.groups, strict=False)).get(axis)


def laid_out_weight(
    target: Tensor, reference: Tensor, slots: Sequence[Slot], dtype: torch.dtype
) -> LaidOutWeight | None:
    """Lay a tensor of two networks out for products.

    Args:
        target, reference: of one shape.
        slots: on the tensor.
        dtype: of the matrices.

    Returns:
        The layout, or None for a tensor of another type, or whose slots are not one or two whole axes.

    Example:
        >>> from sinkhorn_rebasin.permutations.layout import Layout
        >>> slot = Slot("a", "w", (1,), Layout(1, 2))
        >>> laid_out_weight(torch.zeros(3, 2), torch.zeros(3, 2), [slot], torch.float32).target.shape
        torch.Size([2, 3])
    """
    ordered = sorted(slots, key=lambda slot: slot.axes)
    alike = target.dtype == reference.dtype == dtype and target.device == reference.device
    if not alike or not 1 <= len(ordered) <= 2 or not all(_fills(slot, target) for slot in ordered):
        return None
    if len(ordered) == 2 and ordered[0].axes == ordered[1].axes:
        return None
    ends = [slot.axes[0] for slot in ordered]
    between = [axis for axis in range(target.dim()) if axis not in ends]
    order = (ends[0], *between, *ends[1:])
    front, back = target.shape[ends[0]], [target.shape[axis] for axis in ends[1:]]
    laid = [t.permute(order).reshape(front, -1, *back).contiguous() for t in (target, reference)]
    groups = tuple(slot.group for slot in ordered)
    return LaidOutWeight(groups, order, target.permute(order).shape, *laid)


def _fills(slot: Slot, tensor: Tensor) -> bool:
    """Tell whether a slot is one whole axis, a unit a position."""
    layout = slot.layout
    return (
        len(slot.axes) == 1
        and layout.blocks * layout.width == 1
        and layout.is_whole_axis(tensor.shape[slot.axes[0]])
    )
