"""Scale a sparse kernel until its columns sum to one, and differentiate what comes out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.conjugate_gradient import (
    conjugate_gradient,
    prefers_factorization,
    solve_dense,
)
from sinkhorn_rebasin.assignment.sparse.kernel import SparseKernel

__all__ = ["adjoint", "scale"]

NEWTON_FROM = 6
"""Expected number of further plain iterations from which Newton steps take over."""

LARGEST_STEP = 100.0
"""Longest Newton step in the logarithm of a scaling."""

LARGEST_FACTORIZED = 2048
"""Width up to which a system that conjugate gradients do not solve is factorized."""


def scale(kernel: SparseKernel, target: float, budget: int) -> int:
    """Move the column scalings until every column sums to one.

    Plain alternate scaling while it converges fast; then damped Newton steps on the dual, which is convex.

    Args:
        kernel: changed in place.
        target: largest deviation of a column sum from one.
        budget: most iterations to spend.

    Returns:
        The iterations spent, counted in products with P and its transpose.
    """
    spent, error, trust = 0, kernel.error(), None
    while error > target and spent < budget:
        previous = error
        if trust is None:
            kernel.move(-kernel.log_sums)
            spent += 1
        else:
            trust, products = _newton_step(kernel, trust, target, budget - spent)
            spent += products
        error = kernel.error()
        if trust is None and _expected_iterations(previous, error, target) > NEWTON_FROM:
            trust = torch.full_like(kernel.sums[:, :1], 2.0)
    return spent


def _expected_iterations(previous: float, error: float, target: float) -> float:
    if error <= target:
        return 0.0
    return math.inf if error >= previous else math.log(target / error) / math.log(error / previous)


def _newton_step(kernel: SparseKernel, trust: Tensor, target: float, budget: int) -> tuple[Tensor, int]:
    """Take one Newton step, or a plain one where it does not help.

    It solves (S + diag(|r| / t)) d = r, so that |d| <= t everywhere.

    Returns:
        The longest step t of each matrix from now on, and the products spent.
    """
    residual = 1 - kernel.sums
    shift = (residual.abs() + 1e-15) / trust
    step, products = _direction(kernel, residual, shift, target, budget)
    plain = kernel.log_sums
    change = kernel.move(step) - step.sum(-1, keepdim=True)
    before, after = residual.abs(), (1 - kernel.sums).abs()
    helped = change <= -1e-3 * (residual * step).sum(-1, keepdim=True)
    helped |= after.sum(-1, keepdim=True) <= 0.9 * before.sum(-1, keepdim=True)
    trust = torch.where(helped, (trust * 2).clamp_max(LARGEST_STEP), trust * 0.25)
    if bool(helped.all()):
        return trust, products + 1
    kernel.move(torch.where(helped, 0.0, -step - plain))
    return trust, products + 2


def _direction(
    kernel: SparseKernel, residual: Tensor, shift: Tensor, target: float, budget: int
) -> tuple[Tensor, int]:
    """Solve the damped system of a Newton step."""
    n = residual.shape[-1]
    if prefers_factorization(*residual.shape):
        return solve_dense(kernel.gram(), residual, shift), 1
    diagonal = kernel.sums + shift
    largest = residual.abs().amax(-1)
    wanted = torch.maximum(largest.sqrt().clamp_max(0.1), 0.3 * target / largest).clamp_max(0.5)
    solution = conjugate_gradient(
        lambda x: torch.addcmul(kernel.schur_product(x), shift, x),
        residual,
        diagonal,
        floor=wanted * (residual.square() / diagonal).sum(-1).sqrt(),
        max_iterations=max(1, min(100, budget)),
        singular=False,
    )
    if bool(solution.solved.all()) or n > LARGEST_FACTORIZED // 2:
        return solution.vector, solution.iterations
    return solve_dense(kernel.gram(), residual, shift), solution.iterations + 1


def adjoint(kernel: SparseKernel, rows: Tensor, columns: Tensor, precision: float) -> tuple[Tensor, Tensor]:
    r"""Find the potentials that row and column scalings explain.

    They are p and q such that all row and column sums of :math:`P \circ (G - p1^\top - 1q^\top)` vanish.

    Args:
        kernel: P, whose rows sum to one.
        rows, columns: row and column sums of P∘G, shape (B, n).
        precision: relative size of the residual to stop at.
    """
    right_side = columns - kernel.columns_of(rows)
    batch, n = rows.shape
    if prefers_factorization(batch, n):
        potentials = solve_dense(kernel.gram(), right_side)
    else:
        potentials = _by_conjugate_gradients(kernel, right_side, columns, precision)
    return rows - kernel.rows(potentials), potentials


def _by_conjugate_gradients(
    kernel: SparseKernel, right_side: Tensor, columns: Tensor, precision: float
) -> Tensor:
    n = right_side.shape[-1]
    diagonal = kernel.schur_diagonal()
    safe = torch.where(diagonal > 0, diagonal, torch.inf)
    start = (right_side.square() / safe).sum(-1).sqrt()
    rounding = 1e-15 * (columns.square() / safe).sum(-1).sqrt()
    floor = torch.maximum(precision * start, rounding)
    solution = conjugate_gradient(kernel.schur_product, right_side, diagonal, floor, 40 + n // 4)
    if bool(solution.solved.all()) or n > LARGEST_FACTORIZED:
        return solution.vector
    dense = solve_dense(kernel.gram(), right_side)
    return torch.where(solution.solved.unsqueeze(-1), solution.vector, dense)
