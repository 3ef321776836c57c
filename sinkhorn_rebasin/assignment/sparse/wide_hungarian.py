"""The hard assignment of a wide matrix, row by row: nothing of its size is copied."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin.assignment.sparse.candidates import BLOCK, best_pairs
from sinkhorn_rebasin.assignment.sparse.kernel import SparseKernel
from sinkhorn_rebasin.assignment.sparse.solver import scale

__all__ = ["wide_assignment"]

SOFTNESS = 0.2
"""Temperature of that guess, in units of what candidates gain over the last one."""

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

CANDIDATES = 16
"""Columns of each row from which the potentials are first guessed."""

BIDS = 4
"""Bids of each row, on average, before paths are searched."""


def wide_assignment(scores: Tensor, potentials: Tensor | None = None) -> Tensor:
    r"""Find the permutation with the largest total score.

    It is :func:`~sinkhorn_rebasin.assignment.hard_assignment` of one wide matrix in single precision, which SciPy
    would copy in double precision. Rows are read one at a time. Any column potentials y are a start, since

    .. math:: u_i = \max_j X_{ij} + y_j

    are feasible with them: rows first bid for the columns they want, and each row that is left takes the shortest
    path of exchanges to a free column.

    Args:
        scores: X, shape (n, n), float32 or float64, finite.
        potentials: y, shape (n,); None: those of a soft assignment of the best candidates.

    Returns:
        Column of each row, shape (n,), dtype long.

    Example:
        >>> wide_assignment(torch.tensor([[0.9, 0.8, 0.0], [0.9, 0.1, 0.0], [0.0, 0.7, 0.6]])).tolist()
        [1, 0, 2]

    Source: R. Jonker, A. Volgenant, A shortest augmenting path algorithm (1987).
    """
    scores = scores.detach().cpu()
    start = _guess(scores) if potentials is None else potentials.detach()
    search = _Search(scores.numpy(), start.cpu().double().numpy().copy())
    free = search.assign_wanted(scores)
    free = search.bid(free, BIDS * len(scores))
    for row in free:
        search.augment(row)
    return torch.from_numpy(search.column_of)


def _guess(scores: Tensor) -> Tensor:
    """Find potentials of a soft assignment of the best candidates."""
    n = len(scores)
    if n <= 2:
        return scores.new_zeros(n)
    centered = -scores.mean(0)
    values, columns = best_pairs(lambda first, last: scores[first:last] + centered, n, min(CANDIDATES, n))
    values = values - values[:, -1:]
    size = float(values.mean().clamp_min(torch.finfo(values.dtype).tiny))
    temperature = SOFTNESS * size
    exponents = values.double().div_(temperature).unsqueeze(0)
    kernel = SparseKernel(exponents, columns.unsqueeze(0), exponents.new_zeros(1, n))
    scale(kernel, 0.1, 200)
    return centered + kernel.log_v[0] * temperature


class _Search:
    """Hold an assignment that grows, with feasible potentials."""

    def __init__(self, scores: NDArray[np.floating], potentials: Numbers) -> None:
        self.scores, self.y = scores, potentials
        n = len(scores)
        self.column_of, self.row_of = np.full(n, -1), np.full(n, -1)
        self.u = np.zeros(n)

    def row(self, index: int) -> Numbers:
        """Read what a row would gain in each column."""
        return self.scores[index] + self.y

    def assign_wanted(self, scores: Tensor) -> list[int]:
        """Give each column to a row that wants it most.

        Returns the rows that go without.
        """
        shift = torch.from_numpy(self.y).to(scores.dtype)
        step, n = max(1, BLOCK // len(scores)), len(scores)
        wanted = torch.cat([(scores[at : at + step] + shift).argmax(1) for at in range(0, n, step)]).numpy()
        for row in range(n):
            gains = self.row(row)
            column = int(wanted[row])
            self.u[row] = gains.max()
            if gains[column] == self.u[row] and self.row_of[column] < 0:
                self.column_of[row], self.row_of[column] = column, row
        return [int(row) for row in np.flatnonzero(self.column_of < 0)]

    def bid(self, free: list[int], budget: int) -> list[int]:
        """Let free rows take the column they want, and its owner go."""
        waiting, left = free[::-1], []
        while waiting and budget > 0:
            budget -= 1
            row = waiting.pop()
            gains = self.row(row)
            column = int(gains.argmax())
            best, gains[column] = gains[column], -np.inf
            second = gains.max()
            owner = int(self.row_of[column])
            self.u[row] = second
            if best == second and owner >= 0:
                left.append(row)
                continue
            # The column costs the others more by what the row would have lost without it.
            self.y[column] -= best - second
            self.column_of[row], self.row_of[column] = column, row
            if owner >= 0:
                self.column_of[owner] = -1
                waiting.append(owner)
        return left + waiting

    def augment(self, row: int) -> None:
        """Give a row the shortest path to a free column.

        Distances are what all rows on the path lose; every row and column that is nearer changes its potential.
        """
        n = len(self.y)
        distance, parent = np.full(n, np.inf), np.full(n, row)
        done = np.zeros(n, dtype=bool)
        self.u[row] = self.row(row).max()
        reached, current, visited = 0.0, row, []
        while True:
            through = reached + self.u[current] - self.row(current)
            nearer = (through < distance) & ~done
            distance[nearer], parent[nearer] = through[nearer], current
            column = int(np.where(done, np.inf, distance).argmin())
            reached = distance[column]
            done[column] = True
            if self.row_of[column] < 0:
                break
            visited.append(column)
            current = int(self.row_of[column])
        self._settle(row, np.array(visited, dtype=np.int64), distance, reached)
        while True:
            owner = int(parent[column])
            self.row_of[column] = owner
            column, self.column_of[owner] = int(self.column_of[owner]), column
            if owner == row:
                return

    def _settle(self, row: int, columns: Indices, distance: Numbers, reached: float) -> None:
        rows = self.row_of[columns]
        self.u[row] -= reached
        self.u[rows] -= reached - distance[columns]
        self.y[columns] -= reached - distance[columns]
