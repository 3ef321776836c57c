"""Small integer vectors in the null space of a matrix that is known up to round-off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_EXPONENT = 2


def integer_kernel(matrix: NDArray[np.float64], tolerance: float = 1e-9) -> list[NDArray[np.int64]]:
    r"""Find small integer vectors e with :math:`M e = 0`.

    Entries are from -2 to 2; there is one vector per row of the reduced echelon form.

    The null space is that of the singular value decomposition, of singular values below ``tolerance`` of the
    largest one. Rows of its echelon form with other entries are left out.

    Shapes:
        matrix (equations, unknowns), each vector (unknowns,).

    >>> [v.tolist() for v in integer_kernel(np.array([[1.0, 2.0, 3.0], [0.5, -0.5, 0.0]]))]
    [[1, 1, -1]]
    """
    unknowns = matrix.shape[1]
    padded = np.vstack([matrix, np.zeros((max(0, unknowns - len(matrix)), unknowns))])
    _, values, rows = np.linalg.svd(padded, full_matrices=False)
    kernel = rows[values <= tolerance * max(values.max(initial=0.0), np.finfo(np.float64).tiny)]
    found = (_small_integers(row, max(1e-5, 100 * tolerance)) for row in _echelon(kernel, tolerance))
    return [row for row in found if row is not None]


def _echelon(rows: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Reduce rows to echelon form by Gauss-Jordan elimination."""
    rows = rows.copy()
    done = 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        pivot = done + int(np.abs(rows[done:, column]).argmax())
        if abs(rows[pivot, column]) < max(1e-6, tolerance):
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column]
        others = np.arange(len(rows)) != done
        rows[others] -= np.outer(rows[others, column], rows[done])
        done += 1
    return rows


def _small_integers(row: NDArray[np.float64], rounding: float) -> NDArray[np.int64] | None:
    """Round a row to small integers, or return None."""
    for factor in (1, 2):
        whole = np.rint(factor * row)
        if np.abs(factor * row - whole).max() < rounding and np.abs(whole).max() <= LARGEST_EXPONENT:
            return whole.astype(np.int64)
    return None


def kernel_modulo_two(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Find a basis of the kernel modulo 2.

    Shapes:
        rows (equations, unknowns), each vector (unknowns,).

    >>> [v.tolist() for v in kernel_modulo_two(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]))]
    [[1, 1, 1, 0]]
    """
    rows = rows % 2
    pivots: list[int] = []
    for column in range(rows.shape[1]):
        below = np.flatnonzero(rows[len(pivots) :, column])
        if not len(below):
            continue
        done, pivot = len(pivots), len(pivots) + int(below[0])
        rows[[done, pivot]] = rows[[pivot, done]]
        others = np.flatnonzero(rows[:, column])
        rows[others[others != done]] ^= rows[done]
        pivots.append(column)
    basis = []
    for column in range(rows.shape[1]):
        if column not in pivots:
            vector = np.zeros(rows.shape[1], dtype=np.int64)
            vector[column] = 1
            vector[pivots] = rows[: len(pivots), column]
            basis.append(vector)
    return basis
