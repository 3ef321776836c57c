"""Where the units of a permutation group sit along the axes of one tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    r"""Place ``blocks`` x ``size`` units along a flat axis.

    Each unit has ``width`` positions. A regular layout is the affine map

    .. math:: p(b, i, o, k) = \mathrm{offset} + b\,\mathrm{block\_stride} + i\,\mathrm{stride}
        + o\,\mathrm{outer\_stride} + k, \qquad k < \mathrm{inner},\ o < \mathrm{outer},

    and an irregular one lists its positions. Both answer :meth:`table`.

    Shapes:
        ``table()`` is (blocks, size, outer * inner): where the positions of unit ``i`` of block ``b`` are;
        the k-th position of one unit corresponds to the k-th position of every other.

    >>> flatten = Layout(blocks=1, size=3, stride=2, inner=2)       # three channels of two pixels
    >>> flatten.table()[0].tolist()
    [[0, 1], [2, 3], [4, 5]]
    >>> Layout.from_table(flatten.table()) == flatten
    True
    """

    blocks: int
    size: int
    offset: int = 0
    block_stride: int = 0
    stride: int = 1
    outer: int = 1
    outer_stride: int = 0
    inner: int = 1
    listed: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Count the positions of each unit."""
        return self.outer * self.inner

    def table(self) -> Positions:
        """List every unit's positions, (blocks, size, width)."""
        if self.listed is not None:
            return np.array(self.listed, dtype=np.int64).reshape(self.blocks, self.size, self.width)
        block = np.arange(self.blocks)[:, None] * self.block_stride
        units = (self.offset + block + np.arange(self.size) * self.stride)[:, :, None]
        outer = np.arange(self.outer)[:, None] * self.outer_stride
        return units + (outer + np.arange(self.inner)).ravel()

    def places_apart(self, length: int) -> bool:
        """Tell whether an axis holds the positions, none twice.

        ``length`` is the axis's length.

        >>> [layout.places_apart(4) for layout in (Layout(1, 4), Layout(1, 4, offset=1), Layout(1, 4, stride=0))]
        [True, False, False]
        """
        if self.listed is None:
            steps = [(self.block_stride, self.blocks), (self.stride, self.size)]
            steps += [(self.outer_stride, self.outer), (1, self.inner)]
            ends = [step * (count - 1) for step, count in steps]
            if self.offset + sum(min(0, end) for end in ends) < 0:
                return False
            if self.offset + sum(max(0, end) for end in ends) >= length:
                return False
            # Steps that each lead beyond all that the smaller ones reach never meet: there is nothing to list.
            reach = 0
            for step, count in sorted((abs(step), count) for step, count in steps if count > 1):
                if step <= reach:
                    break
                reach += step * (count - 1)
            else:
                return True
        if self.blocks * self.size * self.width > length:
            return False
        table = self.table()
        if table.size and (table.min() < 0 or table.max() >= length):
            return False
        seen = np.zeros(length, dtype=bool)
        seen[table.ravel()] = True
        return int(seen.sum()) == table.size

    @classmethod
    def from_table(cls, table: Positions) -> Layout:
        """Find the compact layout of a table.

        ``table`` is (blocks, size, width), as :meth:`table` gives it. Irregular positions are listed.
        """
        blocks, size, width = table.shape
        first = table[0, 0]
        steps = np.flatnonzero(np.diff(first) != 1)
        inner = int(steps[0]) + 1 if len(steps) else width
        compact = cls(
            blocks=blocks,
            size=size,
            offset=int(first[0]),
            block_stride=int(table[1, 0, 0] - first[0]) if blocks > 1 else 0,
            stride=int(table[0, 1, 0] - first[0]) if size > 1 else 1,
            outer=width // inner,
            outer_stride=int(first[inner] - first[0]) if inner < width else 0,
            inner=inner,
        )
        if compact.outer * inner == width and np.array_equal(compact.table(), table):
            return compact
        return cls(blocks, size, outer=1, inner=width, listed=tuple(int(p) for p in table.ravel()))

    def is_whole_axis(self, length: int) -> bool:
        """Tell whether the units fill an axis in order.

        Each unit is then one of the axis's consecutive equal parts.
        """
        return (
            self.listed is None
            and self.offset == 0
            and self.outer == 1
            and self.stride == self.inner
            and (self.blocks == 1 or self.block_stride == self.size * self.stride)
            and self.blocks * self.size * self.inner == length
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        defaults = Layout(self.blocks, self.size)
        return {k: v for k, v in vars(self).items() if k in ("blocks", "size") or v != getattr(defaults, k)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        """Read the layout that :meth:`to_json` wrote."""
        listed = data.get("listed")
        return cls(**{**data, "listed": None if listed is None else tuple(listed)})
