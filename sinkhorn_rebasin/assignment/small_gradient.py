"""The derivative of the Sinkhorn map of small matrices at its fixed point, without tensors."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.assignment.small_conjugate_gradient import conjugate_gradient
from sinkhorn_rebasin.assignment.small_kernel import Array, Given, gram, scratch, solve_laplacian
from sinkhorn_rebasin.assignment.small_solver import DENSE_BELOW

__all__ = ["small_tangent_residual"]

ROUNDING = 1e-13
"""Relative residual at which conjugate gradients stop; double precision gives little more."""


def small_tangent_residual(matrix: Given, gradient: Given) -> Array:
    r"""Remove from G what row and column scalings explain.

    Finds α, β with :math:`R = G - \alpha 1^T - 1 \beta^T` such that all row and column sums of
    :math:`P \circ R` vanish.

    Args:
        matrix: P, (B, n, n), >= 0 with positive row and column sums, in single or double precision.
        gradient: G = dL/dP, (B, n, n).

    Returns:
        R in scratch memory: copy it.

    >>> matrix, gradient = np.full((1, 2, 2), 0.5), np.array([[[1.0, 0.0], [0.0, 0.0]]])
    >>> small_tangent_residual(matrix, gradient)[0].round(6).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    rows = _LedRows(matrix)
    buffer, wide = scratch(matrix.shape, 1), scratch(matrix.shape, 2)
    wide[...] = gradient  # once: what reads two precisions at a time takes several times as long
    weighted = np.multiply(rows.rest, wide, out=buffer)
    means, gap = rows.mean(weighted @ rows.ones, rows.at_leader(wide))
    sums = weighted.swapaxes(-1, -2) @ rows.ones
    right_side = sums - rows.columns @ means + rows.spread(rows.lead * gap)
    beta = rows.solve(right_side)
    beta_means, beta_gap = rows.mean(rows.rest @ beta, rows.gathered(beta))
    residual = np.subtract(wide, means - beta_means, out=buffer)
    residual -= beta.swapaxes(-1, -2)
    residual.reshape(-1)[rows.flat] = (gap - beta_gap).ravel()
    return residual


class _LedRows:
    """Hold P with the leading entry of each row apart.

    Differences from a row's mean then come from sums of small terms. They keep their relative accuracy as P tends to
    a permutation.
    """

    def __init__(self, matrix: Given) -> None:
        batch, size = matrix.shape[:2]
        self.shape = (batch, size, 1)
        leader = matrix.argmax(-1).ravel()
        self.flat = leader + size * np.arange(batch * size)
        self.places = leader + size * np.repeat(np.arange(batch), size) if batch > 1 else leader
        self.rest = scratch(matrix.shape, 0)
        self.rest[...] = matrix
        self.lead = self.at_leader(self.rest)
        self.rest.reshape(-1)[self.flat] = 0.0
        self.columns = self.rest.swapaxes(-1, -2)
        self.ones = np.ones(self.shape[1:])
        self.rest_sums = self.rest @ self.ones
        self.sums = self.rest_sums + self.lead

    def at_leader(self, table: Given) -> Given:
        """Return the entries of a table at the leaders, (B, n, 1)."""
        return table.reshape(-1)[self.flat].reshape(self.shape)

    def gathered(self, x: Array) -> Array:
        """Return a column vector's entries at the leaders."""
        return x.reshape(-1)[self.places].reshape(self.shape)

    def spread(self, values: Array) -> Array:
        """Add up values of rows at the columns of their leaders."""
        added = np.bincount(self.places, values.ravel(), values.size)
        return np.asarray(added, dtype=np.float64).reshape(self.shape)

    def mean(self, weighted: Array, at_leader: Given) -> tuple[Array, Array]:
        """Return row means and x_leader − mean, from Σ rest·x and x_leader."""
        gap = (self.rest_sums * at_leader - weighted) / self.sums
        return at_leader - gap, gap

    def solve(self, right_side: Array) -> Array:
        """Solve S β = r with S = diag(b) − Pᵀ diag(1/a) P."""
        size = right_side.shape[-2]
        if right_side.size * size**2 <= DENSE_BELOW:
            return self._dense(right_side)
        column_sums = self.columns @ self.ones
        squared = np.multiply(self.rest, self.rest, out=scratch(self.rest.shape, 1)).swapaxes(-1, -2)
        diagonal = column_sums - squared @ (1 / self.sums)
        diagonal += self.spread(self.lead * self.rest_sums / self.sums)

        def product(x: Array) -> Array:
            """Multiply a vector by S."""
            means, gap = self.mean(self.rest @ x, self.gathered(x))
            return column_sums * x - self.columns @ means + self.spread(self.lead * gap)

        most = 40 + size // 4
        solution, solved, _ = conjugate_gradient(
            product, right_side, np.maximum(diagonal, 0.0), ROUNDING, most
        )
        return solution if solved else self._dense(right_side)

    def _dense(self, right_side: Array) -> Array:
        full = self.rest.copy()
        full.reshape(-1)[self.flat] = self.lead.ravel()
        return solve_laplacian(gram(full, full / self.sums), right_side)
