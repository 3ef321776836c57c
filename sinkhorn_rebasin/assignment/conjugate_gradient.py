"""Symmetric semidefinite systems with the constant vector as null direction, in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solution", "conjugate_gradient", "prefers_factorization", "solve_dense"]

FACTORISE_BELOW = 192**3
"""Size B·n³ below which one factorisation costs less than a few steps of conjugate gradients."""


class Solution(NamedTuple):
    """Hold a solution and how it was reached.

    It is (B, n). It also tells which entries of the batch reached their floor (B), and the number of products.
    """

    vector: Tensor
    solved: Tensor
    iterations: int


def prefers_factorization(batch: int, n: int) -> bool:
    """Tell whether a factorization beats conjugate gradients.

    The calls of an iteration cost more than a factorization of small systems.
    """
    return batch * n**3 <= FACTORISE_BELOW


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    right_side: Tensor,
    diagonal: Tensor,
    floor: Tensor,
    max_iterations: int,
    singular: bool = True,
) -> Solution:
    r"""Solve Laplacian systems by preconditioned conjugate gradients.

    They are :math:`Sx = r` with a weighted graph Laplacian S. The preconditioner is Jacobi's.

    Args:
        product: x (B, n) to S x (B, n).
        right_side: r, shape (B, n).
        diagonal: Diagonal of S, shape (B, n), >= 0; where it is 0 the solution is 0.
        floor: Residual norm to stop at, shape (B,), measured as :math:`\sqrt{r^T D^{-1} r}`.
        max_iterations: Most products to spend.
        singular: Whether the constant vector is a null direction; it is then kept out of the residual.
    """
    inverse = torch.where(diagonal > 0, diagonal, 1.0).reciprocal() * (diagonal > 0)
    # a residual of a Laplacian sums to zero; what round-off leaves is spread in proportion to the diagonal,
    # so that entries of tiny weight are not drowned by the rounding of the others
    share = diagonal / diagonal.sum(-1, keepdim=True).clamp_min(torch.finfo(diagonal.dtype).tiny)
    residual = right_side - share * right_side.sum(-1, keepdim=True) if singular else right_side
    x = torch.zeros_like(residual)
    scaled = residual * inverse
    direction = scaled
    energy = (residual * scaled).sum(-1, keepdim=True)
    floor = floor.unsqueeze(-1).square()
    solved = energy <= floor
    running = ~solved
    iterations = 0
    while iterations < max_iterations and bool(running.any()):
        image = product(direction)
        iterations += 1
        curvature = (direction * image).sum(-1, keepdim=True)
        running = running & (curvature > 0)
        step = torch.where(running, energy / curvature, 0.0)
        x = torch.addcmul(x, step, direction)
        residual = torch.addcmul(residual, step, image, value=-1)
        if singular:
            residual = residual - share * residual.sum(-1, keepdim=True)
        scaled = residual * inverse
        new_energy = (residual * scaled).sum(-1, keepdim=True)
        solved = solved | (running & (new_energy <= floor))
        running = running & (new_energy > floor)
        direction = torch.addcmul(scaled, torch.where(running, new_energy / energy, 0.0), direction)
        energy = torch.where(running, new_energy, energy)
    return Solution(x, solved.squeeze(-1), iterations)


def solve_dense(weights: Tensor, right_side: Tensor, shift: Tensor | None = None) -> Tensor:
    r"""Solve dense Laplacian systems by Cholesky factorization.

    They are :math:`(\mathrm{diag}(M1 + s) - M)x = r`, scaled to unit diagonal.

    The diagonal is the sum of the off-diagonal weights, so nothing cancels. Without a shift the null
    direction is filled by a rank-one term. A ridge that grows until the factorisation succeeds damps what
    remains singular.

    Args:
        weights: M, shape (B, n, n), symmetric, >= 0; its diagonal is ignored and overwritten.
        right_side: r, shape (B, n).
        shift: s, shape (B, n), >= 0; None for the singular system.
    """
    weights = weights.double()
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    diagonal = weights.sum(-1) if shift is None else weights.sum(-1) + shift
    root = torch.where(diagonal > 0, diagonal, 1.0).rsqrt() * (diagonal > 0)
    system = weights.mul_(root.unsqueeze(-1)).mul_(root.unsqueeze(-2)).neg_()
    if shift is None:
        null = diagonal.sqrt()
        null = null / torch.linalg.vector_norm(null, dim=-1, keepdim=True).clamp_min(1e-300)
        system += null.unsqueeze(-1) * null.unsqueeze(-2)
    # along the null direction of a disconnected block only the right side's rounding is left: a ridge of the
    # same size keeps its quotient of order one
    ridge = max(1e-14, 0.1 * torch.finfo(right_side.dtype).eps)
    return (_damped_cholesky(system, right_side.double() * root, ridge) * root).to(right_side.dtype)


def _damped_cholesky(off_diagonal: Tensor, right_side: Tensor, first_ridge: float) -> Tensor:
    """Solve by Cholesky with the smallest sufficient ridge.

    The system is (I + off_diagonal) x = r (B, n). Each entry of the batch has its own ridge.
    """
    solution = torch.zeros_like(right_side)
    pending = torch.ones(right_side.shape[0], dtype=torch.bool, device=right_side.device)
    for ridge in (first_ridge, 1e-6, 1e-3):
        damped = off_diagonal.clone()
        damped.diagonal(dim1=-2, dim2=-1).add_(1.0 + ridge)
        factor, info = torch.linalg.cholesky_ex(damped)
        good = pending & (info == 0)
        factor = torch.where(
            good[:, None, None], factor, torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        )
        found = torch.cholesky_solve(right_side.unsqueeze(-1), factor)
        # once more on the remainder: squares the bias of the ridge
        remainder = right_side.unsqueeze(-1) - found - off_diagonal @ found
        found = (found + torch.cholesky_solve(remainder, factor)).squeeze(-1)
        good = good & torch.isfinite(found).all(-1)
        solution = torch.where(good.unsqueeze(-1), found, solution)
        pending = pending & ~good
        if not bool(pending.any()):
            break
    return solution
