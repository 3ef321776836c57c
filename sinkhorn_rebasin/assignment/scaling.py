"""Scale the rows and columns of exp(X / τ) until every row and column sums to one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.conjugate_gradient import conjugate_gradient

__all__ = ["Scaling", "attainable_tolerance", "scale"]

NEWTON_FROM = 6
"""Expected number of further plain iterations from which a Newton step is tried."""

STAGE_RANGE = 30.0
"""Largest spread of the exponents that is scaled in one go; beyond it the temperature is lowered in stages."""


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
    y = scores.new_zeros(scores.shape[:-1]) if potential is None else potential
    iterations = 0
    stages = _stages(scores, temperature) if potential is None else [temperature]
    for stage in stages[:-1]:
        solver = _Solver(scores, stage, y)
        iterations += solver.run(0.2, max(1, (max_iterations - iterations) // len(stages)))
        y = solver.potential()
    solver = _Solver(scores, temperature, y)
    iterations += solver.run(target, max_iterations - iterations)
    y = solver.potential()
    matrix = solver.matrix()
    error = torch.maximum((matrix.sum(-1) - 1).abs().amax(-1), (_columns(matrix, None) - 1).abs().amax(-1))
    return Scaling(matrix, error, y, iterations)


def _stages(scores: Tensor, temperature: float) -> list[float]:
    """Temperatures from one at which the exponents are tame down to the wanted one."""
    low, high = scores.aminmax()
    spread = float(high.double() - low.double())
    stages = [temperature]
    while spread / stages[-1] > STAGE_RANGE:
        stages.append(stages[-1] * 4.0)
    return stages[::-1]


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
        self.kernel = torch.softmax(self._exponents(), dim=-1)
        self.u = torch.ones_like(self.offset)
        self.log_v = torch.zeros_like(self.offset)
        self.v = self.u
        self.sums = _columns(self.kernel, None)

    def potential(self) -> Tensor:
        total = (self.offset + self.log_v) * self.temperature
        return total - total.mean(-1, keepdim=True)

    def matrix(self) -> Tensor:
        """The scaled kernel; takes the kernel's memory."""
        return self.kernel.mul_(self.v.unsqueeze(-2)).mul_(self.u.unsqueeze(-1))

    def _move(self, log_v: Tensor) -> None:
        self.log_v, self.v = log_v, log_v.exp()
        self.u = _rows(self.kernel, self.v).reciprocal()
        self.sums = self.v * _columns(self.kernel, self.u)
        if float(log_v.abs().amax()) > self.drift_limit:
            self.offset = self.offset + log_v
            self._absorb()

    def run(self, target: float, budget: int) -> int:
        """Iterate until every column sum is within ``target`` of one; the iterations spent."""
        spent = 0
        error = float((self.sums - 1).abs().amax())
        trust = torch.full_like(self.sums[:, :1], 2.0)
        expected = 0.0
        while error > target and spent < budget:
            if expected > NEWTON_FROM:
                spent += self._newton(target, trust, budget - spent)
            else:
                self._move(self.log_v - self.sums.log())
                spent += 1
            previous, error = error, float((self.sums - 1).abs().amax())
            expected = _expected_iterations(previous, error, target)
        return spent

    def _newton(self, target: float, trust: Tensor, budget: int) -> int:
        """One Newton step on the dual, or a plain step for the entries of the batch it does not help."""
        residual = 1 - self.sums
        norm = residual.abs().sum(-1, keepdim=True)
        uu = self.u.square()

        def product(x: Tensor) -> Tensor:
            inner = uu * _rows(self.kernel, self.v * x)
            return torch.addcmul(self.sums * x, self.v, _columns(self.kernel, inner), value=-1)

        diagonal = self.sums.clone()
        energy = (residual.square() / diagonal).sum(-1).sqrt()
        forcing = residual.abs().amax(-1).sqrt().clamp_max(0.1)
        floor = torch.maximum(energy * forcing, torch.full_like(energy, 0.3 * target))
        step, _, used = conjugate_gradient(product, residual, diagonal, floor, min(60, budget))
        step = step - step.mean(-1, keepdim=True)
        step = step * (trust / step.abs().amax(-1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
        log_v, sums, offset = self.log_v, self.sums, self.offset
        self._move(log_v + step)
        worse = (1 - self.sums).abs().sum(-1, keepdim=True) > 0.9 * norm
        trust.copy_(torch.where(worse, trust * 0.25, (trust * 2).clamp_max(8.0)))
        if bool(worse.any()):
            now = self.offset + self.log_v
            plain = offset + log_v - sums.log()
            self._move(torch.where(worse, plain, now) - self.offset)
            used += 1
        return used + 1


def _expected_iterations(previous: float, error: float, target: float) -> float:
    """Further plain iterations until the target at the present rate of decrease."""
    import math

    if error <= target or error >= previous:
        return math.inf if error > target else 0.0
    return math.log(target / error) / math.log(error / previous)
