"""What a spec is made of: groups of units, the slots where they show up, and the axes that stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sinkhorn_rebasin.permutations.layout import Layout


@dataclass(frozen=True)
class Group:
    """Describe hidden units that are permuted together.

    They move wherever they show up. A nested group has one independent permutation inside each unit of its ``parent``
    (the inner dimensions of attention heads, the channels inside convolution groups): ``blocks`` of them.
    """

    name: str
    size: int
    blocks: int = 1
    parent: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the group's index vector.

        It is (size,), or (blocks, size) where there are several blocks.
        """
        return (self.size,) if self.blocks == 1 else (self.blocks, self.size)

    @property
    def units(self) -> int:
        """Count the units in all blocks."""
        return self.size * self.blocks


@dataclass(frozen=True)
class Slot:
    """Describe one place where a group shows up.

    It is a tensor, its axes (read as one flat axis) and the units' layout.
    """

    group: str
    tensor: str
    axes: tuple[int, ...]
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return {**vars(self), "layout": self.layout.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Slot:
        """Read the slot that :meth:`to_json` wrote."""
        return cls(data["group"], data["tensor"], tuple(data["axes"]), Layout.from_json(data["layout"]))


@dataclass(frozen=True)
class Frozen:
    """Describe an axis that no group moves.

    It says why, and where in the network's code that was decided. Where it was decided is told and not claimed: two
    specs that differ in nothing else are equal.

    Attributes:
        operation: the ATen operation that fixed the axis, for example ``aten.cumsum``; empty when none did.
        module: path of the module that called it, for example ``encoder.layers.0``.
        source: file and line that called it, the file relative to its package's folder.

    >>> Frozen("w", 0, "read in order", operation="aten.cumsum") == Frozen("w", 0, "read in order")
    True
    """

    tensor: str
    axis: int
    reason: str
    operation: str = field(default="", compare=False)
    module: str = field(default="", compare=False)
    source: str = field(default="", compare=False)


def by_first_slot(groups: Sequence[Group], slots: Sequence[Slot]) -> list[Group]:
    """Order groups as they show up in the network.

    Those without a slot come last.

    >>> first, second = Group("a", 2), Group("b", 2)
    >>> by_first_slot([first, second], [Slot("b", "w", (0,), Layout(1, 2))]) == [second, first]
    True
    """
    place = {slot.group: number for number, slot in reversed(list(enumerate(slots)))}
    return sorted(groups, key=lambda group: place.get(group.name, len(slots)))


# Queries, keys and values, or the gates of a recurrent cell, in one tensor; pixels of a flattened map are more.
MOST_PARTS = 4
MOST_HEADS = 64
"""Parts that may be mixed differently: queries and keys of heads that share their units, as by relative positions."""


def parts_of(slot: Slot, most: int = MOST_PARTS) -> list[Slot]:
    """Split a slot where its parts may scale differently.

    The parts are runs of positions far apart, at most ``most`` of them. A slot with more stays whole.

    >>> from sinkhorn_rebasin.permutations import Layout
    >>> packed = Slot("inner", "in_proj", (0,), Layout(1, 4, outer=2, outer_stride=8))
    >>> [part.layout.table().ravel().tolist() for part in parts_of(packed)]
    [[0, 1, 2, 3], [8, 9, 10, 11]]
    """
    layout = slot.layout
    if not 1 < layout.outer <= most:
        return [slot]
    starts = (layout.offset + part * layout.outer_stride for part in range(layout.outer))
    return [replace(slot, layout=replace(layout, offset=at, outer=1, outer_stride=0)) for at in starts]


def merged_parts(
    slots: Iterable[Slot], values: Mapping[Slot, int], most: int = MOST_PARTS
) -> tuple[tuple[Slot, int], ...]:
    """Pair slots with the values of their parts: a whole slot where its parts agree, none where it is zero."""
    merged: list[tuple[Slot, int]] = []
    for slot in slots:
        parts = parts_of(slot, most)
        of_parts = [values.get(part, 0) for part in parts]
        if len(set(of_parts)) == 1:
            parts, of_parts = [slot], of_parts[:1]
        merged.extend((part, value) for part, value in zip(parts, of_parts, strict=True) if value)
    return tuple(merged)
