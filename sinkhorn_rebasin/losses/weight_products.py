"""The products that data-free losses are made of: their values and gradients without a graph through weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

Picked: TypeAlias = Callable[[int, torch.device], Tensor | None]
"""How many columns there are to the indices of those that count this time; None for all of them."""

COLUMNS_AT_ONCE = 4096
"""Columns that are widened at once: sums of products in double precision need no second copy of a weight."""


def every(columns: int, device: torch.device) -> None:
    """Pick all columns."""
    return None


@dataclass
class OneSide:
    r"""Hold the tensors that one group alone moves.

    .. math:: \lVert P T - R \rVert^2 = \langle P, P\, T T^\top - 2\, R T^\top \rangle + \lVert R \rVert^2

    Where there are fewer columns than units, :math:`T` and :math:`R` themselves are kept.

    Attributes:
        group: whose matrices P are, (n, n) or (blocks, n, n).
        gram: :math:`T T^\top`, (blocks, n, n), or None.
        cross: :math:`R T^\top`, (blocks, n, n), or None.
        target, reference: T and R, (blocks, n, columns), or None.
        constant: squared lengths that the products leave out, of R alone or of both.
    """

    group: str
    gram: Tensor | None
    cross: Tensor | None
    target: Tensor | None
    reference: Tensor | None
    constant: float

    @classmethod
    def of(cls, group: str, targets: list[Tensor], references: list[Tensor], bilinear: bool) -> OneSide:
        """Gather tensors of (blocks, n, columns) each."""
        columns, size = sum(t.shape[-1] for t in targets), targets[0].shape[-2]
        reference_square = sum(square(r) for r in references)
        if bilinear:
            constant = sum(square(t) for t in targets) + reference_square
            return cls(group, None, _summed(references, targets), None, None, constant)
        if columns < size:
            return cls(group, None, None, torch.cat(targets, -1), torch.cat(references, -1), 0.0)
        return cls(
            group, _summed(targets, targets), _summed(references, targets), None, None, reference_square
        )

    def squared(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared distance and half its gradient."""
        matrix = matrix.reshape(-1, *matrix.shape[-2:])
        if self.gram is not None and self.cross is not None:
            half = torch.bmm(matrix, self.gram) - self.cross
            # What is left of numbers that cancel may be negative.
            return ((matrix * (half - self.cross)).sum() + self.constant).clamp_min(0), half
        assert self.target is not None
        assert self.reference is not None
        difference = torch.baddbmm(self.reference, matrix, self.target, beta=-1)
        half = torch.bmm(difference, self.target.mT)
        return torch.linalg.vector_norm(difference).square(), half

    def product(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return ⟨PT, R⟩ and its gradient."""
        assert self.cross is not None
        return (matrix.reshape(self.cross.shape) * self.cross).sum(), self.cross


@dataclass
class TwoSides:
    r"""Hold a tensor that two groups move, :math:`P\, T\, Q^\top`.

    Attributes:
        front, back: the groups of P and of Q.
        target, reference: T and R, (n, k, m).
    """

    front: str
    back: str
    target: Tensor
    reference: Tensor
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def squared(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the squared distance and half its gradients by five products."""
        size, _, width = self.target.shape
        wide, tall = (size, -1), (-1, width)
        target, reference = self.target, self.reference
        if width <= size:
            half = (first @ target.reshape(wide)).reshape(tall)
            difference = torch.addmm(reference.reshape(tall), half, second.mT, beta=-1)
            by_second = difference.mT @ half
            by_first = (difference @ second).reshape(wide) @ target.reshape(wide).mT
        else:
            half = (target.reshape(tall) @ second.mT).reshape(wide)
            difference = torch.addmm(reference.reshape(wide), first, half, beta=-1)
            by_first = difference @ half.mT
            by_second = (first.mT @ difference).reshape(tall).mT @ target.reshape(tall)
        return torch.linalg.vector_norm(difference).square(), by_first, by_second

    def product(self, first: Tensor, second: Tensor, picked: Picked) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return :math:`\langle P T Q^\top, R \rangle` and its gradients by four products.

        Those of P come from some columns of the reference, those of Q from some of its rows, and each is scaled to
        what it would be on average; what all columns or rows have in common is not sampled.
        """
        size, _, width = self.target.shape
        wide, tall = (size, -1), (-1, width)
        columns, rows = (picked(count, self.target.device) for count in (width, size))
        if columns is not None:
            by_first = self._from_columns(second, columns)
        else:
            by_first = (self.reference.reshape(tall) @ second).reshape(wide) @ self.target.reshape(wide).mT
        if rows is not None:
            by_second = self._from_rows(first, rows)
        else:
            moved = (first @ self.target.reshape(wide)).reshape(tall)
            by_second = self.reference.reshape(tall).mT @ moved
        return (first * by_first).sum(), by_first, by_second

    def _from_columns(self, matrix: Tensor, picked: Tensor) -> Tensor:
        r"""Estimate the gradient by P from some columns.

        .. math:: \sum_w R_w X_w^\top = \sum_w (R_w - \bar R) (X_w - r_w \bar T)^\top
            + \bar R \sum_w (X_w - r_w \bar T)^\top + \sum_w r_w R_w \bar T^\top,
            \qquad X = T Q^\top,\ r = Q 1

        Only the first sum is sampled. At a nearly uniform Q all columns of X are nearly their mean, so that it
        vanishes and the gradient is exact there, where a sample of whole columns has more noise than gradient.
        """
        size, _, width = self.target.shape
        sums, totals, (center, other) = matrix.sum(1), matrix.sum(0), self._means(2)
        # The sum over all columns comes as one column more.
        moved = self.target @ torch.cat([matrix[picked], totals[None]]).mT
        whole = moved[..., -1]
        moved = torch.addcmul(moved[..., :-1], center[..., None], sums[picked], value=-1)
        part = (self.reference[..., picked] - other[..., None]).reshape(size, -1)
        left = torch.cat([other, self.reference @ sums], 1)
        right = torch.cat([whole - center * sums.sum(), center], 1)
        # Added up in place: each matrix of its own costs as much as a product.
        return (left @ right.mT).addmm_(part, moved.reshape(size, -1).mT, alpha=width / len(picked))

    def _from_rows(self, matrix: Tensor, picked: Tensor) -> Tensor:
        """Estimate the gradient by Q from some rows.

        It is done as for that by P from some columns.
        """
        size, between, width = self.target.shape
        sums, totals, (center, other) = matrix.sum(1), matrix.sum(0), self._means(0)
        target, reference = (tensor.reshape(size, -1) for tensor in (self.target, self.reference))
        moved = (torch.cat([matrix[picked], totals[None]]) @ target).reshape(-1, between, width)
        moved, whole = moved[:-1] - sums[picked, None, None] * center, moved[-1]
        part = (self.reference[picked] - other).reshape(-1, width)
        left = torch.cat([other, (sums @ reference).reshape(between, width)])
        right = torch.cat([whole - center * sums.sum(), center])
        return (left.mT @ right).addmm_(part.mT, moved.reshape(-1, width), alpha=size / len(picked))

    def _means(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return the means of both tensors.

        They are along the first or last axis, and computed once.
        """
        if axis not in self._known:
            self._known[axis] = self.target.mean(axis), self.reference.mean(axis)
        return self._known[axis]


def square(tensor: Tensor) -> float:
    """Sum squares in double precision.

    >>> square(torch.tensor([3.0, 4.0]))
    25.0
    """
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64).square())


def _summed(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Sum products of units over all columns in double precision, and round once."""
    blocks, size, _ = first[0].shape
    total = first[0].new_zeros(blocks, size, size, dtype=torch.float64)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one.split(COLUMNS_AT_ONCE, -1), other.split(COLUMNS_AT_ONCE, -1), strict=True):
            total.baddbmm_(left.double(), right.double().mT)
    return total.to(first[0].dtype)
