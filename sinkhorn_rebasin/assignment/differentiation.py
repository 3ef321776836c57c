"""Two ways to differentiate the soft permutation: through its fixed point or through every iteration."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.implicit_gradient import Adjoint, adjoint
from sinkhorn_rebasin.assignment.positional import Positional
from sinkhorn_rebasin.assignment.scores import check_finite, check_range
from sinkhorn_rebasin.assignment.sinkhorn_solver import attainable_tolerance, marginal_error, scale
from sinkhorn_rebasin.assignment.small_matrices import is_small
from sinkhorn_rebasin.assignment.warm_starts import usable_start

__all__ = ["ImplicitSinkhorn", "Report", "unrolled_sinkhorn"]


@dataclass
class Report:
    """Record the solver's iterations and convergence.

    The solver fills it in while it runs.
    """

    iterations: int = 0
    error: float = math.inf
    tolerance: float = 0.0
    converged: bool = False

    def fill(self, error: Tensor, iterations: int, tolerance: float, n: int) -> None:
        """Record the error, iterations and convergence."""
        self.iterations = iterations
        self.tolerance = attainable_tolerance(tolerance, n, error.dtype)
        self.error = float(error.amax()) if error.numel() else 0.0
        self.converged = self.error <= self.tolerance


class ImplicitSinkhorn(torch.autograd.Function):
    """Differentiate Sinkhorn through its fixed point.

    Scores become (P, marginal error, potential). There is reverse and forward mode.
    """

    @staticmethod
    def forward(
        scores: Tensor, start: Tensor | None, tau: float, tolerance: float, limit: int, report: Report
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Solve for P, its error and the potential."""
        _check_start(start)
        n, shape = scores.shape[-1], scores.shape
        if scores.numel() == 0:
            report.fill(scores.new_zeros(shape[:-2]), 0, tolerance, n)
            return scores.clone(), scores.new_zeros(shape[:-2]), scores.new_zeros(shape[:-1])
        bounds = check_range(scores, tau)
        off = nullcontext() if is_small(scores) else torch.autocast(scores.device.type, enabled=False)
        with off:
            flat_start = None if start is None else start.reshape(-1, n)
            out = scale(scores.reshape(-1, n, n), tau, tolerance, limit, flat_start, bounds)
        report.fill(out.marginal_error, out.iterations, tolerance, n)
        return (
            out.matrix.reshape(shape),
            out.marginal_error.reshape(shape[:-2]),
            out.potential.reshape(shape[:-1]),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Save P and τ for the derivatives."""
        ctx.temperature = inputs[2]
        ctx.save_for_backward(output[0])
        ctx.save_for_forward(output[0])
        ctx.mark_non_differentiable(output[1], output[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the scores."""
        (matrix,) = ctx.saved_tensors
        return adjoint(matrix, grad, ctx.temperature), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        """Return the derivative of P along a tangent."""
        # the derivative of P with respect to X is symmetric: the adjoint is also the forward map
        (matrix,) = ctx.saved_tensors
        return Adjoint.apply(matrix, tangent, ctx.temperature), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, start: Tensor | None, *rest: Any) -> Any:
        """Run over a mapped axis as a batch."""
        size = info.batch_size
        scores = scores.expand(size, *scores.shape) if in_dims[0] is None else scores.movedim(in_dims[0], 0)
        if start is not None:
            start = start.expand(size, *start.shape) if in_dims[1] is None else start.movedim(in_dims[1], 0)
        return ImplicitSinkhorn.apply(scores, start, *rest), (0, 0, 0)


ImplicitSinkhorn.forward.__signature__ = Positional.of(ImplicitSinkhorn.forward)  # type: ignore[attr-defined]


def unrolled_sinkhorn(
    scores: Tensor, start: Tensor | None, tau: float, tolerance: float, limit: int, report: Report
) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate in logarithms with every step on the tape.

    These are plain Sinkhorn iterations.
    """
    _check_start(start)
    if scores.numel():
        check_range(scores.detach(), tau)
    with torch.autocast(scores.device.type, enabled=False):
        exponents = scores / tau
        log_v = (
            torch.zeros_like(scores[..., 0, :]) if start is None else _usable(start, scores, tau, tolerance)
        )
        target = attainable_tolerance(tolerance, scores.shape[-1], scores.dtype)
        iterations = 0
        while True:
            log_matrix = torch.log_softmax(exponents + log_v.unsqueeze(-2), dim=-1)
            matrix = log_matrix.exp()
            error = marginal_error(matrix.detach())
            if iterations >= limit or bool((error <= target).all()):
                break
            log_v = log_v - log_matrix.logsumexp(-2)
            iterations += 1
    report.fill(error, iterations, tolerance, scores.shape[-1])
    potential = log_v.detach() * tau
    return matrix, error, potential - potential.mean(-1, keepdim=True)


def _usable(start: Tensor, scores: Tensor, tau: float, tolerance: float) -> Tensor:
    """Keep only starts that preserve the scores.

    Returns logarithms of the first column scalings. They are zero for matrices whose start would swallow the scores.
    """
    if scores.numel() == 0:
        return start
    n = scores.shape[-1]
    flat = scores.detach().reshape(-1, n, n)
    kept = usable_start(flat, tau, tolerance, start.reshape(-1, n), lambda x: torch.zeros_like(x[..., 0]))
    return kept.reshape(start.shape) / tau


def _check_start(start: Tensor | None) -> None:
    if start is not None:
        check_finite(start, "initial_scaling")
