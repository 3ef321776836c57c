"""The products that data-free losses are made of: their values and gradients without a graph through weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        what it would be on average.
        """
        size, _, width = self.target.shape
        wide, tall = (size, -1), (-1, width)
        columns, rows = (picked(count, self.target.device) for count in (width, size))
        part, scale = self.reference, 1.0
        if columns is not None:
            second_part, part, scale = second[columns], part[:, :, columns], width / len(columns)
            moved = self.target.reshape(tall) @ second_part.mT
            by_first = (part.reshape(wide) @ moved.reshape(wide).mT).mul_(scale)
        else:
            by_first = (part.reshape(tall) @ second).reshape(wide) @ self.target.reshape(wide).mT
        part, scale = self.reference, 1.0
        if rows is not None:
            first_part, part, scale = first[rows], part[rows], size / len(rows)
        else:
            first_part = first
        moved = (first_part @ self.target.reshape(wide)).reshape(tall)
        by_second = part.reshape(tall).mT @ moved
        by_second = by_second if rows is None else by_second.mul_(scale)
        return (first * by_first).sum(), by_first, by_second


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
