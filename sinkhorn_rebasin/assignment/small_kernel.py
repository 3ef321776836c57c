"""The kernel exp(X / τ) of small matrices between its scalings, in double precision and without tensors.

Of small matrices the calls cost more than the arithmetic, and a call of NumPy costs a fraction of one of PyTorch.
Vectors are columns, (..., n, 1), so that the same code serves one matrix (n, n) and a batch (B, n, n).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

__all__ = ["Array", "SmallKernel", "gram", "scratch", "solve_laplacian"]

Array = NDArray[np.float64]
Given = NDArray[Any]
"""Numbers in single or double precision."""

Precision = type[np.float32] | type[np.float64]

MOST_KEPT = 2**20
"""Elements of a scratch array that is kept for the next call: fresh memory costs more than a pass over it."""

DRIFT_LIMIT = 150.0
"""Logarithm of the column scalings from which they are absorbed into the kernel."""

LARGEST_ALONE = 64
"""Size of a single matrix up to which neither NumPy nor SciPy starts threads, and their calls cost less."""

RIDGE = 1e-14
"""Of the unit diagonal: what keeps a Laplacian of several components regular."""


class SmallKernel:
    """Hold a kernel between row and column scalings.

    It is diag(u) K diag(v) with K = exp(X / τ + offset), scaled row by row. Every row of it sums to one at all times;
    ``sums`` are its column sums.

    Args:
        scores: X, (..., n, n), finite, in single or double precision.
        temperature: τ > 0.
        potential: y = τ·log v to start from, (..., n, 1).
        kind: the precision of the kernel and of products with it; the logarithms are in double precision.
    """

    def __init__(
        self, scores: Given, temperature: float, potential: Array, kind: Precision = np.float64
    ) -> None:
        self.scores, self.temperature, self.kind = scores, temperature, kind
        self.offset = potential / temperature
        self._absorb()
        if self.sums.min() < 1e-12:
            # A column nobody wants: one sweep in logarithms leaves every column sum above 1/n.
            exponents = scores.astype(np.float64) / temperature + self.offset.swapaxes(-1, -2)
            exponents -= exponents.max(-1, keepdims=True)
            exponents -= np.log(np.exp(exponents).sum(-1, keepdims=True))
            largest = exponents.max(-2, keepdims=True)
            columns = largest + np.log(np.exp(exponents - largest).sum(-2, keepdims=True))
            self.offset = self.offset - columns.swapaxes(-1, -2)
            self._absorb()

    def _absorb(self) -> None:
        kernel = scratch(self.scores.shape, 0, self.kind)
        np.divide(self.scores, self.temperature, out=kernel, dtype=self.kind)
        kernel += self.offset.swapaxes(-1, -2).astype(self.kind, copy=False)
        if self.kind is np.float32:
            # One pass where the passes decide: of a wide matrix they cost more than this call.
            table = torch.from_numpy(kernel)
            torch.softmax(table, -1, out=table)
        else:
            kernel -= kernel.max(-1, keepdims=True)
            np.exp(kernel, out=kernel)
        self.kernel = kernel
        self.transposed = kernel.swapaxes(-1, -2)
        self.log_v = np.zeros_like(self.offset)
        self.v: Given = np.ones_like(self.offset, dtype=self.kind)
        self.u: Given = 1 / (kernel @ self.v)
        self.sums: Given = self.transposed @ self.u

    def move(self, step: Array) -> Array:
        """Add to the logarithm of the column scalings.

        Returns the change of Σ log(row sums), (..., 1, 1).
        """
        before = self.u
        self.log_v = self.log_v + step
        self.v = np.exp(self.log_v).astype(self.kind, copy=False)
        self.u = 1 / (self.kernel @ self.v)
        self.sums = self.v * (self.transposed @ self.u)
        change: Array = np.log(before / self.u).sum(-2, keepdims=True)
        if np.abs(self.log_v).max() > DRIFT_LIMIT:
            self.offset = self.offset + self.log_v
            self._absorb()
        return change

    def error(self) -> float:
        """Return the column sums' largest deviation from one."""
        return float(np.abs(self.sums - 1).max())

    def schur_product(self, x: Array) -> Array:
        """Multiply by (diag(column sums) − PᵀP), by two products."""
        narrow: Given = (self.v * x).astype(self.kind, copy=False)
        scaled: Given = self.u * self.u
        inner: Given = scaled * (self.kernel @ narrow)
        return self.sums * x - self.v * (self.transposed @ inner)

    def matrix(self) -> Array:
        """Return P in double precision, (..., n, n)."""
        matrix = np.multiply(self.kernel, self.v.swapaxes(-1, -2), dtype=np.float64)
        matrix *= self.u
        return matrix

    def into_matrix(self, out: Given | None = None) -> Given:
        """Turn the kernel into P, in its memory, which the next kernel of this thread takes.

        P lies in ``out`` where that is given and has the kernel's precision.
        """
        if self.log_v.any():
            self.kernel *= self.v.swapaxes(-1, -2)
        fits = out is not None and out.dtype == self.kind
        return np.multiply(self.kernel, self.u, out=out if fits else self.kernel)


class _Kept(threading.local):
    """Hold a thread's scratch arrays by place and precision."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[int, Precision], Given] = {}


_KEPT = _Kept()


def scratch(shape: tuple[int, ...], place: int, kind: Precision = np.float64) -> Given:
    """Return memory that holds until the next call for the same place in this thread.

    >>> scratch((2, 2), 0).shape, scratch((3, 3), 1) is scratch((3, 3), 1)
    ((2, 2), True)
    """
    kept = _KEPT.arrays.get((place, kind))
    if kept is not None and kept.shape == shape:
        return kept
    fresh = np.empty(shape, dtype=kind)
    if fresh.size <= MOST_KEPT:
        _KEPT.arrays[place, kind] = fresh
    return fresh


def solve_laplacian(weights: Array, right_side: Array, shift: Array | None = None) -> Array:
    r"""Solve dense Laplacian systems.

    They are :math:`(\mathrm{diag}(M1 + s) - M)x = r`, scaled to unit diagonal. The diagonal is the sum of the
    off-diagonal weights, so nothing cancels. Without a shift the null direction is filled by a rank-one term.

    Args:
        weights: M, (..., n, n), symmetric, >= 0; overwritten.
        right_side: r, (..., n, 1).
        shift: s, (..., n, 1), >= 0; None for the singular system.

    >>> weights = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> solve_laplacian(weights, np.array([[1.0], [-1.0]])).round(6).tolist()
    [[0.5], [-0.5]]
    """
    here = np.arange(weights.shape[-1])
    weights[..., here, here] = 0
    diagonal = weights.sum(-1, keepdims=True)
    if shift is not None:
        diagonal = diagonal + shift
    present = diagonal > 0
    root = present / np.sqrt(np.where(present, diagonal, 1.0))
    weights *= -root
    weights *= root.swapaxes(-1, -2)
    weights[..., here, here] = 1 + RIDGE
    if shift is None:
        null = np.sqrt(diagonal)
        null /= np.maximum(np.sqrt(diagonal.sum(-2, keepdims=True)), 1e-300)
        weights += null * null.swapaxes(-1, -2)
    return _solved(weights, right_side * root) * root


def _solved(matrix: Array, right_side: Array) -> Array:
    """Solve symmetric systems.

    A small one alone is solved by Cholesky's factorization.
    """
    if _is_alone(matrix):
        # Of a symmetric matrix the transpose is the same, and lies in the order that LAPACK reads without a copy.
        _, solution, failed = dposv(matrix[0].T, right_side[0])
        if not failed:
            return solution[None]
    # By the threads of PyTorch: those of NumPy's own library would contend with them.
    found: Array = torch.linalg.solve(torch.from_numpy(matrix), torch.from_numpy(right_side)).numpy()
    return found


def _is_alone(matrix: Array) -> bool:
    """Tell whether this is one small matrix.

    A call of PyTorch then costs more than the work.
    """
    return matrix.ndim == 3 and len(matrix) == 1 and matrix.shape[-1] <= LARGEST_ALONE


def gram(matrix: Array, scaled: Array) -> Array:
    """Return AᵀB of two batches, (..., n, n).

    >>> gram(np.eye(2), np.full((2, 2), 3.0)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    if _is_alone(matrix):
        return matrix.swapaxes(-1, -2) @ scaled
    return (torch.from_numpy(matrix).mT @ torch.from_numpy(scaled)).numpy()
