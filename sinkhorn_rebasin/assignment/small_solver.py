"""Scale small matrices until every row and column sums to one, and keep the flow of saturated ones in balance.

The iterations are those of the solver for large matrices: plain ones while they converge fast, else damped Newton
steps. A matrix whose rows each have one leading entry is a permutation but for its rounding: its marginals say
nothing then, and what the gradient depends on is the balance of what leaves and what enters each unit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.assignment.small_conjugate_gradient import conjugate_gradient
from sinkhorn_rebasin.assignment.small_kernel import Array, SmallKernel, gram, solve_laplacian

__all__ = ["DENSE_BELOW", "balanced", "iterate"]

NEWTON_FROM = 6
"""Expected number of further plain iterations from which Newton steps take over."""

DENSE_BELOW = 80**3
"""Size B·n³ up to which one factorization costs less than conjugate gradients."""

IMBALANCE = 1e-3
"""Of what flows through a unit: more of it than this leaves the direction of the gradient uncertain."""

LARGEST_BALANCED = 64
"""Size up to which flows are balanced, by a factorization a step."""

NEGLIGIBLE = 1e-6
"""Of the largest flow: units with less change no digit of the gradient that counts."""

BALANCING_STEPS = 20
"""Where flows differ by more than that many steps can mend, they are left as they are."""

CLOSE = 1e-3
"""Residual below which a Newton step that lessens it is taken, whatever rounding makes of the dual."""

LONGEST_STEP = 20.0
"""Largest step of a scaling's logarithm that is tried."""


def iterate(kernel: SmallKernel, target: float, budget: int) -> int:
    """Move the scalings until every column sum is within the target of one.

    Returns the iterations spent.
    """
    spent, error, newton = 0, kernel.error(), None
    while error > target and spent < budget:
        if newton is None:
            kernel.move(-np.log(np.maximum(kernel.sums, np.finfo(np.float64).tiny)))
            spent += 1
            previous, error = error, kernel.error()
            if _expected_iterations(previous, error, target) > NEWTON_FROM:
                newton = _Newton(kernel, target)
            continue
        spent += newton.step(budget - spent)
        error = kernel.error()
    return spent


def _expected_iterations(previous: float, error: float, target: float) -> float:
    """Estimate the plain iterations still needed at the present rate."""
    if error <= target:
        return 0.0
    if error >= previous:
        return math.inf
    return math.log(target / error) / math.log(error / previous)


class _Newton:
    """Take damped Newton steps on the dual, Σ log(row sums) − Σ log v.

    Each matrix has a trust t, the longest step in the logarithm of a scaling.
    """

    def __init__(self, kernel: SmallKernel, target: float) -> None:
        self.kernel, self.target = kernel, target
        self.trust = np.full_like(kernel.sums[..., :1, :], 2.0)
        sums = kernel.sums
        self.dense = sums.size * sums.shape[-2] ** 2 <= DENSE_BELOW

    def step(self, budget: int) -> int:
        """Take one Newton step, and a plain one where it does not help.

        Returns the iterations spent.
        """
        kernel = self.kernel
        residual = 1 - kernel.sums
        before = np.abs(residual)
        shift = (before + 1e-15) / self.trust
        step, spent = self._direction(residual, shift, budget)
        change = kernel.move(step) - step.sum(-2, keepdims=True)
        after = np.abs(1 - kernel.sums)
        # Close to the solution the change of the dual drowns in rounding and the residual decides.
        helped = change <= -1e-3 * (residual * step).sum(-2, keepdims=True)
        close = before.max(-2, keepdims=True) < CLOSE
        helped |= close & (after.sum(-2, keepdims=True) <= 0.9 * before.sum(-2, keepdims=True))
        helped |= close & (after.max(-2, keepdims=True) <= 0.9 * before.max(-2, keepdims=True))
        self.trust = np.where(helped, np.minimum(self.trust * 2, LONGEST_STEP), self.trust * 0.25)
        if not helped.all():
            logarithms = np.log(np.maximum(kernel.sums, np.finfo(np.float64).tiny))
            kernel.move(np.where(helped, 0.0, -step - logarithms))
            spent += 1
        return spent + 1

    def _direction(self, residual: Array, shift: Array, budget: int) -> tuple[Array, int]:
        """Solve (S + diag(shift)) d = r; by the maximum principle |d| <= t everywhere."""
        kernel = self.kernel
        if not self.dense:
            largest = float(np.abs(residual).max())
            wanted = min(0.5, max(min(0.1, largest**0.5), 0.3 * self.target / largest))
            solution, solved, spent = conjugate_gradient(
                lambda x: kernel.schur_product(x) + shift * x,
                residual,
                kernel.sums + shift,
                wanted,
                min(20 + residual.shape[-2] // 4, budget),
            )
            if solved:
                return solution, spent
            self.dense = True
        matrix = kernel.matrix()
        return solve_laplacian(gram(matrix, matrix), residual, shift), 1


def balanced(matrix: Array, potential: Array, budget: int, smallest: float) -> tuple[Array, Array, int]:
    r"""Balance a matrix that is a permutation but for small entries.

    Relative to its leading entry, each row is :math:`q_{ij}`. The scalings :math:`q_{ij} e^{d_j - d_{l(i)}}` keep
    the leading entries at one, and d is chosen so that as much leaves each unit as enters it,

    .. math:: \sum_{j \ne l(i)} P_{ij} = \sum_{k \ne i} P_{k\,l(i)} ,

    which sums of columns near one cannot tell.

    Args:
        matrix: P, (B, n, n), doubly stochastic to a tolerance.
        potential: log v, (B, n, 1).
        budget: the most Newton steps.
        smallest: entries below it count as zero.

    Returns:
        P, log v and the steps taken; unchanged where the leading entries are no permutation or P is balanced.
    """
    batch, size = matrix.shape[:2]
    if not 2 <= size <= LARGEST_BALANCED:
        return matrix, potential, 0
    leader = matrix.argmax(-1)
    flat = leader.ravel() + size * np.arange(batch * size)
    lead = matrix.reshape(-1)[flat].reshape(batch, size, 1)
    if lead.min() <= 0.5:
        return matrix, potential, 0
    if not (np.sort(leader, -1) == np.arange(size)).all():
        return matrix, potential, 0
    ratios = matrix / lead
    ratios.reshape(-1)[flat] = 0.0
    leaders = _Leaders(flat, leader)
    moved = np.zeros_like(potential)
    flow, spent = _Flow.of(ratios, moved, leaders), 0
    trust = np.full_like(potential[:, :1], 2.0)
    if flow.rest.max() < smallest:
        return matrix, potential, 0
    while spent < min(budget, BALANCING_STEPS) and flow.imbalance > IMBALANCE:
        spent += 1
        full = flow.completed(leaders)
        shift = np.abs(flow.residual) / trust + 1e-300
        step = solve_laplacian(gram(full, full), flow.residual, shift)
        following = _Flow.of(ratios, moved + step, leaders)
        helped = following.value <= flow.value
        trust = np.where(helped, np.minimum(2 * trust, 50.0), trust / 4)
        moved = moved + np.where(helped, step, 0.0)
        flow = following if helped.all() else _Flow.of(ratios, moved, leaders)
    if not spent or flow.imbalance > IMBALANCE:
        return matrix, potential, 0
    return flow.completed(leaders), potential + moved, spent


class _Leaders(NamedTuple):
    """Hold where the leading entries are: their places in the flat batch, and their columns (B, n)."""

    flat: NDArray[np.intp]
    columns: NDArray[np.intp]


class _Flow(NamedTuple):
    """Hold what flows between the units of saturated matrices.

    Attributes:
        rest: P without its leading entries, (B, n, n).
        residual: how much more leaves each column's unit than enters it, (B, n, 1).
        value: Σ log(row sums relative to the leading entry), which is least in balance, (B, 1, 1).
        imbalance: the largest residual relative to what flows through its unit.
    """

    rest: Array
    residual: Array
    value: Array
    imbalance: float

    @classmethod
    def of(cls, ratios: Array, moved: Array, leaders: _Leaders) -> _Flow:
        """Take the entries relative to the leading one, at scalings moved by exp(d)."""
        at_leader = np.take_along_axis(moved[..., 0], leaders.columns, -1)[..., None]
        rest = ratios * np.exp(moved.swapaxes(-1, -2) - at_leader)
        sums = rest.sum(-1, keepdims=True)
        rest /= 1 + sums
        entering = rest.sum(-2)
        leaving = np.zeros_like(entering)
        np.put_along_axis(leaving, leaders.columns, rest.sum(-1), -1)
        difference, through = leaving - entering, leaving + entering
        counted = np.maximum(through, NEGLIGIBLE * through.max(-1, keepdims=True) + 1e-290)
        imbalance = float((np.abs(difference) / counted).max())
        return cls(rest, difference[..., None], np.log1p(sums).sum(-2, keepdims=True), imbalance)

    def completed(self, leaders: _Leaders) -> Array:
        """Return P with its leading entries."""
        full = self.rest.copy()
        full.reshape(-1)[leaders.flat] = (1 - full.sum(-1)).ravel()
        return full
