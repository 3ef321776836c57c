"""The sparse soft permutation: scores on candidates to a doubly stochastic matrix in O(nk) memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sinkhorn_rebasin.assignment.differentiation import Report
from sinkhorn_rebasin.assignment.scores import check_finite
from sinkhorn_rebasin.assignment.sinkhorn_solver import attainable_tolerance
from sinkhorn_rebasin.assignment.sparse.candidates import check_candidates
from sinkhorn_rebasin.assignment.sparse.kernel import SparseKernel
from sinkhorn_rebasin.assignment.sparse.solver import adjoint, scale
from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning

__all__ = ["SparseSinkhornResult", "sparse_sinkhorn"]

Watcher = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, repr=False)
class SparseSinkhornResult:
    r"""Hold a soft permutation as candidates plus rank one.

    .. math:: P = C + \ell r^\top, \qquad C_{i, c_{ia}} = \mathtt{values}_{ia}

    Attributes:
        candidates: c, shape (..., n, k).
        values: of C, shape (..., n, k); the gradient flows through it, ``left`` and ``right``.
        left, right: ℓ and r, shape (..., n).
        marginal_error, iterations, converged: as in :class:`SinkhornResult`.
        column_scaling: τ·log v, shape (..., n), from which another temperature can start.
        watcher: what was given.
    """

    candidates: Tensor
    values: Tensor
    left: Tensor
    right: Tensor
    marginal_error: Tensor
    iterations: int
    converged: bool
    column_scaling: Tensor
    watcher: Watcher | None = None

    def dense(self) -> Tensor:
        """Write P out, shape (..., n, n)."""
        spread = self.left.unsqueeze(-1) * self.right.unsqueeze(-2)
        return spread.scatter_add(-1, self.candidates, self.values)

    def __repr__(self) -> str:
        return (
            f"SparseSinkhornResult({self.candidates.shape[-1]} candidates in each of {self.candidates.shape[-2]} "
            f"rows, marginal error {float(self.marginal_error.detach().max()):.1e})"
        )


def sparse_sinkhorn(
    scores: Tensor,
    candidates: Tensor,
    temperature: float = 1.0,
    *,
    floor: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    initial_scaling: Tensor | None = None,
    watcher: Watcher | None = None,
) -> SparseSinkhornResult:
    r"""Turn scores of candidates into a doubly stochastic matrix.

    It is :func:`~sinkhorn_rebasin.assignment.sinkhorn` of the matrix that has the scores at the candidates and
    ``floor`` everywhere else, in O(nk) memory and time for each iteration.

    .. math:: P = \mathrm{diag}(u)\,(S + e^{f/\tau} 1 1^\top)\,\mathrm{diag}(v)

    Every pair has a positive entry, so a solution always exists. All is computed in double precision.

    Args:
        scores: shape (..., n, k), in float32 or float64.
        candidates: column of each score, shape (..., n, k), long and distinct in each row.
        temperature: τ > 0.
        floor: f, the score of all other pairs.
        tolerance, max_iterations, initial_scaling: as for the dense operator.
        watcher: called in the backward pass with the potentials (p, q), shape (..., n): the loss falls fastest
            along the pairs whose :math:`\partial L/\partial P_{ij} - p_i - q_j` is least.

    Note:
        - The gradient is implicit, as is the dense one, and reaches the candidates alone. There is no second
          derivative and no forward mode.

    Raises:
        AssignmentError: Scores or candidates that do not belong together, or an argument out of range.

    Warns:
        ConvergenceWarning: The tolerance was not reached within ``max_iterations``.

    Example:
        >>> import torch
        >>> from sinkhorn_rebasin.assignment import sinkhorn
        >>> scores, candidates = torch.tensor([[2.0], [1.0], [1.0]]), torch.tensor([[1], [0], [2]])
        >>> dense = torch.zeros(3, 3).scatter(1, candidates, scores)
        >>> torch.allclose(sparse_sinkhorn(scores, candidates).dense(), sinkhorn(dense).matrix, atol=1e-6)
        True

    Source: R. Sinkhorn (1964); M. Eisenberger et al. (2022) for the implicit gradient.
    """
    check_candidates(scores, candidates)
    for name, number in (("temperature", temperature), ("tolerance", tolerance)):
        if not (math.isfinite(number) and number > 0):
            raise AssignmentError(f"Expected {name} to be a positive finite number but got {number}.")
    if initial_scaling is not None and initial_scaling.shape != scores.shape[:-1]:
        raise AssignmentError(
            f"Expected initial_scaling of shape {tuple(scores.shape[:-1])}, one a column, but got "
            f"{tuple(initial_scaling.shape)}."
        )
    check_finite(scores.detach())
    report = Report()
    settings = (float(temperature), float(floor), tolerance, max_iterations)
    outputs = _SparseSinkhorn.apply(scores, candidates, initial_scaling, settings, report, watcher)
    values, left, right, error, scaling = outputs
    if not report.converged:
        warnings.warn(
            f"Expected a marginal error of at most {report.tolerance:.3g} but got {report.error:.3g} after "
            f"{report.iterations} iterations at temperature {temperature:g}; raise max_iterations or temperature.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return SparseSinkhornResult(
        candidates, values, left, right, error, report.iterations, report.converged, scaling, watcher
    )


class _SparseSinkhorn(torch.autograd.Function):
    """Differentiate the sparse operator through its fixed point."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        candidates: Tensor,
        start: Tensor | None,
        settings: tuple[float, float, float, int],
        report: Report,
        watcher: Watcher | None,
    ) -> tuple[Tensor, ...]:
        """Solve for P, its error and its potential."""
        tau, floor, tolerance, limit = settings
        n, k = scores.shape[-2:]
        exponents = (scores.detach().double() - floor).div_(tau).reshape(-1, n, k)
        first = exponents.new_zeros(exponents.shape[:2])
        if start is not None:
            first = (start.detach().double() / tau).reshape(-1, n)
        with torch.autocast(scores.device.type, enabled=False):
            kernel = SparseKernel(exponents, candidates.reshape(-1, n, k), first)
            spent = scale(kernel, 0.7 * attainable_tolerance(tolerance, n, scores.dtype), limit)
        error = (kernel.sums - 1).abs().amax(-1).to(scores).reshape(scores.shape[:-2])
        report.fill(error, spent, tolerance, n)
        # Only P is needed from here on; the solver's other vectors are freed.
        ctx.kernel, ctx.temperature, ctx.watcher = kernel, tau, watcher
        shape = scores.shape[:-1]
        potential = kernel.log_v * tau
        potential = (potential - potential.mean(-1, keepdim=True)).to(scores).reshape(shape)
        values = kernel.extra.to(scores).reshape(scores.shape)
        sides = (side.to(scores).reshape(shape) for side in (kernel.left, kernel.right))
        ctx.mark_non_differentiable(error, potential)
        return values, *sides, error, potential

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, values: Tensor, left: Tensor, right: Tensor, *_: Tensor) -> tuple[Any, ...]:
        """Return the gradient of the scores."""
        kernel: SparseKernel = ctx.kernel
        gradient = values.double().reshape(kernel.shape)
        weighted = kernel.extra * gradient
        rows = weighted.sum(-1) + left.double().view_as(kernel.left) * kernel.left
        columns = kernel.scatter(weighted) + right.double().view_as(kernel.right) * kernel.right
        precision = 1e-13 if values.dtype == torch.float64 else 1e-9
        p, q = adjoint(kernel, rows, columns, precision)
        if ctx.watcher is not None:
            ctx.watcher(p.to(values).reshape(left.shape), q.to(values).reshape(left.shape))
        found = gradient.sub(p.unsqueeze(-1)).sub_(kernel.gather(q)).mul_(kernel.matrix)
        return found.div_(ctx.temperature).to(values).reshape(values.shape), None, None, None, None, None
