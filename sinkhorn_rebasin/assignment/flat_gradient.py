"""The derivative of the Sinkhorn map of matrices that are far from a permutation, without tensors."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.assignment.small_conjugate_gradient import conjugate_gradient
from sinkhorn_rebasin.assignment.small_kernel import Array, Given, scratch

__all__ = ["LARGEST_ENTRY", "flat_tangent_residual", "works_in"]

LARGEST_ENTRY = 0.25
"""Of a flat matrix: nothing cancels in it that single precision would miss."""

DOUBLE_UP_TO = 64
"""Size up to which double precision costs no time, as the calls decide."""


def works_in(matrix: Given) -> type[np.float32] | type[np.float64]:
    """Return the precision for a flat matrix.

    >>> works_in(np.ones((1, 99, 99), dtype=np.float32)).__name__
    'float32'
    """
    single = matrix.dtype == np.float32 and matrix.shape[-1] > DOUBLE_UP_TO
    return np.float32 if single else np.float64


def flat_tangent_residual(matrix: Given, gradient: Given) -> Given | None:
    r"""Remove from G what row and column scalings explain.

    Finds α, β with :math:`R = G - \alpha 1^T - 1 \beta^T` such that all row and column sums of
    :math:`P \circ R` vanish, by few products: the system of a flat matrix is nearly diagonal.

    Args:
        matrix: P, (B, n, n), with no entry above ``LARGEST_ENTRY``.
        gradient: G = dL/dP, (B, n, n).

    Returns:
        R in scratch memory: copy it. None where the system needs more care.

    >>> gradient = np.zeros((1, 16, 16))
    >>> gradient[0, 0, 0] = 1.0
    >>> residual = flat_tangent_residual(np.full((1, 16, 16), 1 / 16), gradient)
    >>> bool(np.abs(residual.sum(1)).max() < 1e-12), float(residual[0, 0, 0])
    (True, 0.87890625)
    """
    kind = works_in(matrix)
    table = scratch(matrix.shape, 0, kind)
    table[...] = matrix
    columns, ones = table.swapaxes(-1, -2), np.ones((table.shape[-1], 1), dtype=kind)
    row_sums: Given = table @ ones
    column_sums: Given = columns @ ones
    buffer = np.multiply(table, gradient, out=scratch(matrix.shape, 1, kind))
    means = buffer @ ones / row_sums
    sums, explained = buffer.swapaxes(-1, -2) @ ones, columns @ means

    def product(x: Array) -> Array:
        """Multiply a vector by S.

        S = diag(b) − Pᵀ diag(1/a) P.
        """
        narrow = x.astype(kind, copy=False)
        return column_sums * x - columns @ (table @ narrow / row_sums)

    right_side = (sums - explained).astype(np.float64)
    right_side -= right_side.mean(-2, keepdims=True)
    magnitude = float((np.abs(sums) + np.abs(explained)).max())
    start = float(np.abs(right_side).max())
    if not 0 < start < np.inf:
        return None
    tolerance = 4 * float(np.finfo(kind).eps) * max(1.0, magnitude / start)
    beta, solved, _ = conjugate_gradient(product, right_side, column_sums, tolerance, 40)
    if not solved:
        return None
    narrow = beta.astype(kind, copy=False)
    residual = np.subtract(gradient, means - table @ narrow / row_sums, out=buffer)
    residual -= narrow.swapaxes(-1, -2)
    return residual
