"""The soft permutation: scores to a doubly stochastic matrix, with its gradient."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.differentiation import ImplicitSinkhorn, Report, unrolled_sinkhorn
from sinkhorn_rebasin.assignment.scores import check_scores
from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning
from sinkhorn_rebasin.shown import html_table

__all__ = ["SinkhornResult", "sinkhorn"]


@dataclass(frozen=True, repr=False)
class SinkhornResult:
    """Hold a soft permutation and how good it is.

    Attributes:
        matrix: Doubly stochastic P, shape (..., n, n); the gradient flows through it alone.
        marginal_error: Largest deviation of a row or column sum of P from one, shape (...).
        iterations: Scaling steps, conjugate-gradient steps and factorisations spent. Each of the first two
            costs one product with the kernel and one with its transpose.
        converged: Whether every matrix of the batch reached the tolerance.
        column_scaling: Logarithmic column scalings in units of the scores, τ·log v, shape (..., n), detached:
            P = softmax((X + column_scaling) / τ) over rows. As a potential in units of the scores it changes
            little with τ, so it warm-starts another temperature as well.
    """

    matrix: Tensor
    marginal_error: Tensor
    iterations: int
    converged: bool
    column_scaling: Tensor

    def __repr__(self) -> str:
        told = self._told()
        return (
            f"SinkhornResult(matrix of shape {told['matrix']}, marginal error {told['marginal error']}, "
            f"{told['state']})"
        )

    def _repr_html_(self) -> str:
        return html_table("SinkhornResult", list(self._told().items()))

    def _told(self) -> dict[str, str]:
        error = f"{self.marginal_error.detach().max():.1e}" if self.marginal_error.numel() else "none"
        state = "converged" if self.converged else "not converged"
        return {
            "matrix": str(tuple(self.matrix.shape)),
            "marginal error": error,
            "state": f"{state} after {self.iterations} iterations",
        }


def sinkhorn(
    scores: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    gradient: Literal["implicit", "unrolled"] = "implicit",
    initial_scaling: Tensor | None = None,
) -> SinkhornResult:
    r"""Turn scores into a doubly stochastic matrix.

    This is a soft permutation.

    .. math:: P = \arg\max_{P1 = 1,\ P^T1 = 1} \langle P, X \rangle + \tau H(P)
                = \mathrm{diag}(u)\, e^{X/\tau}\, \mathrm{diag}(v)

    Args:
        scores: X, shape (..., n, n). Half precision is computed, and returned, in float32; its gradient
            comes back in half precision. Autocast has no effect inside.
        temperature: τ > 0, a number or a 0-d tensor, which gets a gradient where it requires one. P tends to the
            permutation of :func:`hard_assignment` as τ tends to 0.
        tolerance: Largest deviation of a row or column sum from one. It is raised to eps·max(8, √n), the
            rounding of such a sum, where it asks for less (float32: 1e-6 at n = 64, 5e-6 at n = 2048).
        max_iterations: Most iterations to spend, counted as in :class:`SinkhornResult`.
        gradient: ``"implicit"`` differentiates the fixed point by one linear solve; ``"unrolled"``
            differentiates every plain iteration (slow, much memory; a witness for tests).
        initial_scaling: ``column_scaling`` of an earlier result of like scores, shape (..., n). One so large that
            adding it would swallow digits of the scores is left out.

    Raises:
        AssignmentError: Scores that are not finite, square, non-empty and floating, or an argument out of
            range.

    Warns:
        ConvergenceWarning: The tolerance was not reached within ``max_iterations``.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.5, 1.0]])
        >>> result = sinkhorn(scores, temperature=0.5)
        >>> result.converged and bool((result.matrix.sum(0) - 1).abs().max() < 1e-6)
        True
        >>> torch.allclose(result.matrix, torch.softmax((scores + result.column_scaling) / 0.5, dim=-1))
        True

    Source:
        R. Sinkhorn (1964); M. Cuturi (2013); G. Mena et al. (2018) for learned permutations; M. Eisenberger
        et al. (2022) for the implicit gradient; F. A. Guerrero Peña et al. (2023) for re-basin.
    """
    tau = _check_arguments(scores, temperature, tolerance, max_iterations, gradient, initial_scaling)
    work = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    if isinstance(temperature, Tensor):
        # P depends on X / τ alone: the factor is one, and its derivative is that by τ.
        work = work * (temperature.detach() / temperature).to(work)
    start = None if initial_scaling is None else initial_scaling.detach().to(work)
    report = Report()
    if gradient == "implicit":
        outputs = ImplicitSinkhorn.apply(work, start, tau, tolerance, max_iterations, report)
    else:
        outputs = unrolled_sinkhorn(work, start, tau, tolerance, max_iterations, report)
    matrix, error, scaling = outputs
    if not report.converged:
        warnings.warn(
            f"Expected a marginal error of at most {report.tolerance:.3g} but got {report.error:.3g} after "
            f"{report.iterations} iterations at temperature {tau:g}; raise max_iterations or temperature, "
            "or pass initial_scaling.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return SinkhornResult(matrix, error, report.iterations, report.converged, scaling)


def _check_arguments(
    scores: Tensor,
    temperature: float | Tensor,
    tolerance: float,
    max_iterations: int,
    gradient: str,
    initial_scaling: Tensor | None,
) -> float:
    """Check all arguments but the scores' values.

    Returns the temperature as a number.
    """
    check_scores(scores)
    if isinstance(temperature, Tensor) and temperature.ndim != 0:
        raise AssignmentError(
            f"Expected temperature to be a number or 0-d tensor but got shape {tuple(temperature.shape)}."
        )
    tau = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not (math.isfinite(tau) and tau > 0):
        raise AssignmentError(f"Expected temperature to be a positive finite number but got {tau}.")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise AssignmentError(f"Expected tolerance to be a positive finite number but got {tolerance}.")
    if max_iterations < 1:
        raise AssignmentError(f"Expected max_iterations to be at least 1 but got {max_iterations}.")
    if gradient not in ("implicit", "unrolled"):
        raise AssignmentError(f'Expected gradient to be "implicit" or "unrolled" but got {gradient!r}.')
    if initial_scaling is not None and initial_scaling.shape != scores.shape[:-1]:
        raise AssignmentError(
            f"Expected initial_scaling of shape {tuple(scores.shape[:-1])}, that of the scores without their "
            f"last axis but one, but got {tuple(initial_scaling.shape)}."
        )
    return tau
