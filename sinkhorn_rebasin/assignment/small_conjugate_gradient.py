"""Conjugate gradients for Laplacian systems of small matrices, without tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sinkhorn_rebasin.assignment.small_kernel import Array

__all__ = ["conjugate_gradient"]


def conjugate_gradient(
    product: Callable[[Array], Array],
    right_side: Array,
    diagonal: Array,
    tolerance: float,
    max_iterations: int,
) -> tuple[Array, bool, int]:
    r"""Solve Sx = r with Jacobi's preconditioner.

    A constant null direction needs no care in double precision: the residual keeps its sum of zero.

    Args:
        product: x to S x, (..., n, 1).
        right_side: r.
        diagonal: of S, >= 0; where it is 0 the solution is 0.
        tolerance: of the residual, relative to the right side's :math:`\sqrt{r^T D^{-1} r}`.
        max_iterations: most products to spend.

    Returns:
        x, whether all matrices of the batch reached the tolerance, and the products spent.

    >>> x, solved, _ = conjugate_gradient(lambda x: 2 * x, np.ones((3, 1)), np.full((3, 1), 2.0), 1e-9, 5)
    >>> solved, x.ravel().tolist()
    (True, [0.5, 0.5, 0.5])
    """
    if right_side.size == right_side.shape[-2]:
        return _of_one_matrix(product, right_side, diagonal, tolerance, max_iterations)
    inverse = np.where(diagonal > 0, 1 / np.where(diagonal > 0, diagonal, 1.0), 0.0)
    x, residual = np.zeros_like(right_side), right_side.copy()
    scaled = residual * inverse
    direction = scaled
    energy = (residual * scaled).sum(-2, keepdims=True)
    floor = tolerance * tolerance * energy
    for iteration in range(max_iterations):
        if (energy <= floor).all():
            return x, True, iteration
        image = product(direction)
        curvature = (direction * image).sum(-2, keepdims=True)
        # One that is solved waits for the others: its round-off has hardly any curvature, and would be blown up.
        running = (energy > floor) & (curvature > 0)
        step = np.where(running, energy / np.where(running, curvature, 1.0), 0.0)
        x += step * direction
        residual -= step * image
        scaled = residual * inverse
        before, energy = energy, (residual * scaled).sum(-2, keepdims=True)
        direction = scaled + energy / np.where(before > 0, before, np.inf) * direction
    return x, bool((energy <= floor).all()), max_iterations


def _of_one_matrix(
    product: Callable[[Array], Array],
    right_side: Array,
    diagonal: Array,
    tolerance: float,
    max_iterations: int,
) -> tuple[Array, bool, int]:
    """Solve a single system.

    Numbers of Python cost less than arrays of one number.
    """
    inverse = 1 / np.where(diagonal > 0, diagonal, np.inf)
    x, residual = np.zeros_like(right_side), right_side.copy()
    scaled = residual * inverse
    direction = scaled
    energy = float(np.vdot(residual, scaled))
    floor = tolerance * tolerance * energy
    for iteration in range(max_iterations):
        if energy <= floor:
            return x, True, iteration
        image = product(direction)
        curvature = float(np.vdot(direction, image))
        if curvature <= 0:
            return x, False, iteration + 1
        step = energy / curvature
        x += step * direction
        residual -= step * image
        scaled = residual * inverse
        before, energy = energy, float(np.vdot(residual, scaled))
        direction = scaled + (energy / before) * direction
    return x, energy <= floor, max_iterations
