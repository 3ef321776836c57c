"""Scale the rows and columns of exp(X / τ) until every row and column sums to one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.conjugate_gradient import conjugate_gradient, solve_dense
from sinkhorn_rebasin.assignment.potentials import assignment_potentials

__all__ = ["Scaling", "attainable_tolerance", "scale"]

NEWTON_FROM = 6
"""Expected number of further plain iterations from which a Newton step is tried."""

LARGE_SPREAD = 250.0
"""Spread of the exponents from which the start comes from the hard assignment."""


class Scaling(NamedTuple):
    """Doubly stochastic matrix (B, n, n), marginal error (B,), potential τ·log v (B, n), iterations."""

    matrix: Tensor
    marginal_error: Tensor
    potential: Tensor
    iterations: int


def attainable_tolerance(tolerance: float, n: int, dtype: torch.dtype) -> float:
    """Raise a tolerance to what sums of n rounded numbers can reach, about eps·√n (at least 8 eps)."""
    return max(tolerance, torch.finfo(dtype).eps * max(8.0, n**0.5))


def scale(
    scores: Tensor, temperature: float, tolerance: float, max_iterations: int, potential: Tensor | None
) -> Scaling:
    """Find potentials y with P = softmax((X + y) / τ, rows) doubly stochastic.

    Args:
        scores: X, shape (B, n, n).
        temperature: τ > 0.
        tolerance: Largest deviation of a row or column sum from one.
        max_iterations: Most pairs of products with the kernel to spend.
        potential: Start y, shape (B, n); None starts at zero.
    """
    target = 0.7 * attainable_tolerance(tolerance, scores.shape[-1], scores.dtype)
    solver = _Solver(scores, temperature, _start(scores, temperature) if potential is None else potential)
    iterations = solver.run(target, max_iterations)
    y = solver.potential()
    matrix = solver.matrix()
    error = torch.maximum((matrix.sum(-1) - 1).abs().amax(-1), (_columns(matrix, None) - 1).abs().amax(-1))
    return Scaling(matrix, error, y, iterations)


def _start(scores: Tensor, temperature: float) -> Tensor:
    """Zero where the exponents are tame, the potentials of the hard assignment at low temperature."""
    if float(scores.amax()) - float(scores.amin()) > LARGE_SPREAD * temperature:
        return assignment_potentials(scores)
    return scores.new_zeros(scores.shape[:-1])


def _columns(kernel: Tensor, weights: Tensor | None) -> Tensor:
    """Kᵀw (B, n); w None is all ones."""
    if weights is None:
        weights = kernel.new_ones(kernel.shape[:-1])
    return torch.bmm(weights.unsqueeze(-2), kernel).squeeze(-2)


def _rows(kernel: Tensor, weights: Tensor) -> Tensor:
    """K w (B, n)."""
    return torch.bmm(kernel, weights.unsqueeze(-1)).squeeze(-1)


class _Solver:
    """One temperature: the kernel with the potential absorbed, and the scalings u, v relative to it.

    Invariant: every row of diag(u) K diag(v) sums to one; ``sums`` are its column sums.
    """

    def __init__(self, scores: Tensor, temperature: float, potential: Tensor) -> None:
        self.scores, self.temperature = scores, temperature
        self.drift_limit = 20.0 if scores.dtype == torch.float32 else 150.0
        self.offset = potential / temperature
        self.factorise = False
        self._absorb()
        if bool((self.sums < 1e-12).any()):
            # a column nobody wants: one sweep in logarithms leaves every column sum above 1/n
            exponents = self._exponents()
            exponents -= exponents.logsumexp(-1, keepdim=True)
            self.offset = self.offset - exponents.logsumexp(-2)
            self._absorb()

    def _exponents(self) -> Tensor:
        return torch.add(self.offset.unsqueeze(-2), self.scores, alpha=1.0 / self.temperature)

    def _absorb(self) -> None:
        # one n×n allocation: fresh memory costs more than a pass over it
        kernel = self._exponents()
        self.kernel = kernel.sub_(kernel.amax(-1, keepdim=True)).exp_()
        self.u = kernel.sum(-1).reciprocal()
        self.log_v = torch.zeros_like(self.offset)
        self.v = torch.ones_like(self.offset)
        self.sums = _columns(kernel, self.u)

    def potential(self) -> Tensor:
        total = (self.offset + self.log_v) * self.temperature
        return total - total.mean(-1, keepdim=True)

    def matrix(self) -> Tensor:
        """The scaled kernel; takes the kernel's memory."""
        return self.kernel.mul_(self.v.unsqueeze(-2)).mul_(self.u.unsqueeze(-1))

    def _move(self, log_v: Tensor) -> Tensor:
        """Go to other column scalings; the change of Σ log(row sums), shape (B, 1)."""
        before = self.u
        self.log_v, self.v = log_v, log_v.exp()
        self.u = _rows(self.kernel, self.v).reciprocal()
        self.sums = self.v * _columns(self.kernel, self.u)
        change = (before / self.u).log().sum(-1, keepdim=True)
        if float(log_v.abs().amax()) > self.drift_limit:
            self.offset = self.offset + log_v
            self._absorb()
        return change

    def error(self) -> float:
        return float((self.sums - 1).abs().amax())

    def run(self, target: float, budget: int) -> int:
        """Iterate until every column sum is within ``target`` of one; the iterations spent."""
        spent, error, slow = 0, self.error(), False
        trust = torch.full_like(self.sums[:, :1], 2.0)
        while error > target and spent < budget:
            if slow:
                spent += self._newton(target, trust, budget - spent)
                error = self.error()
            else:
                self._move(self.log_v - self.sums.log())
                spent += 1
                previous, error = error, self.error()
                slow = _expected_iterations(previous, error, target) > NEWTON_FROM
        return spent

    def _direction(self, residual: Tensor, trust: Tensor, target: float, budget: int) -> tuple[Tensor, int]:
        """Solve (S + diag(|r|/t)) d = r; by the maximum principle for Laplacians |d| <= t everywhere."""
        eps = torch.finfo(residual.dtype).eps
        shift = (residual.abs() + 4 * eps) / trust
        used = 0
        if not self.factorise:
            uu = self.u.square()

            def product(x: Tensor) -> Tensor:
                inner = uu * _rows(self.kernel, self.v * x)
                return torch.addcmul((self.sums + shift) * x, self.v, _columns(self.kernel, inner), value=-1)

            diagonal = self.sums + shift
            energy = (residual.square() / diagonal).sum(-1).sqrt()
            largest = residual.abs().amax(-1)
            floor = energy * torch.maximum(largest.sqrt().clamp_max(0.1), 0.3 * target / largest).clamp_max(
                0.5
            )
            limit = min(20 + residual.shape[-1] // 4, budget)
            step, found, used = conjugate_gradient(product, residual, diagonal, floor, limit, singular=False)
            self.factorise = not bool(found.all())
        if self.factorise:
            scaled = self.kernel * self.v.unsqueeze(-2) * self.u.unsqueeze(-1)
            step = solve_dense(scaled.mT @ scaled, residual, shift)
            used += 1
        return step, used

    def _newton(self, target: float, trust: Tensor, budget: int) -> int:
        """One Newton step on the dual, or a plain step for the entries of the batch it does not help."""
        residual = 1 - self.sums
        norm, largest = residual.abs().sum(-1, keepdim=True), residual.abs().amax(-1, keepdim=True)
        step, used = self._direction(residual, trust, target, budget)
        log_v, sums, offset = self.log_v, self.sums, self.offset
        # the dual Σ log(row sums) − Σ log v is convex, and the step one of descent; close to the solution its
        # change drowns in rounding and the residual decides
        change = self._move(log_v + step) - step.sum(-1, keepdim=True)
        enough = change <= -1e-3 * (residual * step).sum(-1, keepdim=True)
        after = (1 - self.sums).abs()
        smaller = (after.sum(-1, keepdim=True) <= 0.9 * norm) | (after.amax(-1, keepdim=True) <= 0.9 * largest)
        worse = ~(enough | smaller)
        trust.copy_(torch.where(worse, trust * 0.25, (trust * 2).clamp_max(self.drift_limit)))
        if bool(worse.any()):
            now = self.offset + self.log_v
            plain = offset + log_v - sums.log()
            self._move(torch.where(worse, plain, now) - self.offset)
            used += 1
        return used + 1


def _expected_iterations(previous: float, error: float, target: float) -> float:
    """Further plain iterations until the target at the present rate of decrease."""
    if error <= target or error >= previous:
        return math.inf if error > target else 0.0
    return math.log(target / error) / math.log(error / previous)
