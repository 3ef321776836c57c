"""Scale the rows and columns of exp(X / τ) until every row and column sums to one.

Plain alternate scaling while it converges fast; else damped Newton steps on the dual, whose system is the
one of the implicit gradient. Every Newton step costs some products with the kernel, as a plain step does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.assignment_potentials import assignment_potentials
from sinkhorn_rebasin.assignment.conjugate_gradient import (
    conjugate_gradient,
    prefers_factorization,
    solve_dense,
)
from sinkhorn_rebasin.assignment.scaled_kernel import ScaledKernel
from sinkhorn_rebasin.assignment.small_matrices import is_small, small_scaling
from sinkhorn_rebasin.assignment.sums import weighted_column_sums
from sinkhorn_rebasin.assignment.warm_starts import usable_start

__all__ = ["Scaling", "attainable_tolerance", "marginal_error", "scale"]

NEWTON_FROM = 6
"""Expected number of further plain iterations from which Newton steps take over."""

SMALL_SPREAD = 40.0
"""Spread of the exponents up to which they need no row maximum taken off."""

LARGE_SPREAD = 250.0
"""Spread of the exponents from which the start comes from the hard assignment."""


class Scaling(NamedTuple):
    """Hold a doubly stochastic matrix and its diagnosis.

    They are P (B, n, n), its marginal error (B,), the potential τ·log v (B, n) and iterations.
    """

    matrix: Tensor
    marginal_error: Tensor
    potential: Tensor
    iterations: int


def attainable_tolerance(tolerance: float, n: int, dtype: torch.dtype) -> float:
    """Raise a tolerance to what rounding permits.

    Sums of n rounded numbers can reach about eps·√n, and at least 8 eps.
    """
    return max(tolerance, torch.finfo(dtype).eps * max(8.0, n**0.5))


def scale(
    scores: Tensor,
    temperature: float,
    tolerance: float,
    max_iterations: int,
    potential: Tensor | None,
    bounds: tuple[float, float],
) -> Scaling:
    """Find potentials that make P doubly stochastic.

    They are y with P = softmax((X + y) / τ, rows).

    Args:
        scores: X, shape (B, n, n), finite.
        temperature: τ > 0.
        tolerance: Largest deviation of a row or column sum from one.
        max_iterations: Most iterations to spend.
        potential: Start y, shape (B, n); None chooses one. A start that would swallow digits of the scores is left
            out. Where a start leads nowhere at a large spread, that from the hard assignment gets as many iterations.
        bounds: Smallest and largest score.
    """
    low, high = bounds
    spread = (high - low) / temperature

    def cold_start(scores: Tensor) -> Tensor:
        """Choose a start without an earlier potential."""
        if spread > LARGE_SPREAD:
            return assignment_potentials(scores)
        # any constant is a potential like zero; this one centres the exponents
        return scores.new_full(scores.shape[:-1], -0.5 * (low + high))

    if potential is None:
        return _scale_from(scores, temperature, tolerance, max_iterations, cold_start(scores), spread, True)
    start = usable_start(scores, temperature, tolerance, potential, cold_start)
    warm = _scale_from(scores, temperature, tolerance, max_iterations, start, spread, False)
    reached = attainable_tolerance(tolerance, scores.shape[-1], scores.dtype)
    if spread <= LARGE_SPREAD or float(warm.marginal_error.max()) <= reached:
        return warm
    # A start far from the solution can stall where the spread is large: the hard assignment does not.
    cold = scale(scores, temperature, tolerance, max_iterations, None, bounds)
    return cold._replace(iterations=warm.iterations + cold.iterations)


def _scale_from(
    scores: Tensor,
    temperature: float,
    tolerance: float,
    max_iterations: int,
    potential: Tensor,
    spread: float,
    is_cold: bool,
) -> Scaling:
    target = 0.7 * attainable_tolerance(tolerance, scores.shape[-1], scores.dtype)
    if is_small(scores):
        return Scaling(*small_scaling(scores, temperature, target, max_iterations, potential, spread))
    kernel = ScaledKernel(scores, temperature, potential, is_cold and spread < SMALL_SPREAD)
    iterations = _iterate(kernel, target, max_iterations)
    potential = kernel.log_scaling * temperature
    matrix = kernel.into_matrix()
    return Scaling(matrix, marginal_error(matrix), potential - potential.mean(-1, keepdim=True), iterations)


def marginal_error(matrix: Tensor) -> Tensor:
    """Return the largest deviation of a marginal from one.

    Marginals are row and column sums. The deviation is (...).
    """
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    # a product with ones adds up columns faster than a sum over the rows does
    columns = weighted_column_sums(flat.new_ones(flat.shape[:-1]), flat)
    error = torch.maximum((flat.sum(-1) - 1).abs().amax(-1), (columns - 1).abs().amax(-1))
    return error.reshape(matrix.shape[:-2])


def _iterate(kernel: ScaledKernel, target: float, budget: int) -> int:
    """Move the scalings until the column sums fit.

    Every column sum is then within ``target`` of one. Returns the iterations spent.
    """
    spent, error, newton = 0, kernel.error(), None
    while error > target and spent < budget:
        if newton is not None:
            spent += newton.step(budget - spent)
            error = kernel.error()
            continue
        _plain_step(kernel)
        spent += 1
        previous, error = error, kernel.error()
        if _expected_iterations(previous, error, target) > NEWTON_FROM:
            newton = _Newton(kernel, target)
    return spent


def _plain_step(kernel: ScaledKernel) -> None:
    kernel.move(-_log(kernel.sums))


def _log(sums: Tensor) -> Tensor:
    return sums.clamp_min(torch.finfo(sums.dtype).tiny).log()


def _expected_iterations(previous: float, error: float, target: float) -> float:
    """Estimate the plain iterations still needed.

    The present rate of decrease is taken to last until the target.
    """
    if error <= target:
        return 0.0
    if error >= previous:
        return math.inf
    return math.log(target / error) / math.log(error / previous)


class _Newton:
    """Take damped Newton steps on the dual.

    The dual is Σ log(row sums) − Σ log v, convex in log v.

    Each entry of the batch has a trust t, the longest step in the logarithm of a scaling.
    """

    def __init__(self, kernel: ScaledKernel, target: float) -> None:
        self.kernel, self.target = kernel, target
        self.trust = torch.full_like(kernel.sums[:, :1], 2.0)
        self.factorize_sums = prefers_factorization(*kernel.sums.shape)

    def step(self, budget: int) -> int:
        """Take one Newton step, or a plain one.

        Entries of the batch that it does not help take a plain one. Returns the iterations spent.
        """
        kernel = self.kernel
        sums = kernel.sums
        residual = 1 - sums
        step, spent = self._direction(residual, budget)
        change = kernel.move(step) - step.sum(-1, keepdim=True)
        # close to the solution the change of the dual drowns in rounding and the residual decides
        before, after = residual.abs(), (1 - kernel.sums).abs()
        helped = change <= -1e-3 * (residual * step).sum(-1, keepdim=True)
        helped |= after.sum(-1, keepdim=True) <= 0.9 * before.sum(-1, keepdim=True)
        helped |= after.amax(-1, keepdim=True) <= 0.9 * before.amax(-1, keepdim=True)
        grown = (self.trust * 2).clamp_max(kernel.drift_limit)
        self.trust = torch.where(helped, grown, self.trust * 0.25)
        if not bool(helped.all()):
            kernel.move(torch.where(helped, 0.0, -step - _log(sums)))
            spent += 1
        return spent + 1

    def _direction(self, residual: Tensor, budget: int) -> tuple[Tensor, int]:
        """Solve for the damped Newton direction.

        It solves (S + diag(|r| / t)) d = r. By the maximum principle for Laplacians |d| <= t everywhere.
        """
        kernel = self.kernel
        shift = (residual.abs() + 4 * torch.finfo(residual.dtype).eps) / self.trust
        spent = 0
        if not self.factorize_sums:
            diagonal = kernel.sums + shift
            largest = residual.abs().amax(-1)
            wanted = torch.maximum(largest.sqrt().clamp_max(0.1), 0.3 * self.target / largest).clamp_max(0.5)
            solution = conjugate_gradient(
                lambda x: torch.addcmul(kernel.schur_product(x), shift, x),
                residual,
                diagonal,
                floor=wanted * (residual.square() / diagonal).sum(-1).sqrt(),
                max_iterations=min(20 + residual.shape[-1] // 4, budget),
                singular=False,
            )
            self.factorize_sums = not bool(solution.solved.all())
            spent = solution.iterations
            if not self.factorize_sums:
                return solution.vector, spent
        return solve_dense(kernel.gram(), residual, shift), spent + 1
