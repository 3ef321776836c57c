"""The derivative of the Sinkhorn map at its fixed point, by one linear solve."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sinkhorn_rebasin.assignment.conjugate_gradient import (
    conjugate_gradient,
    prefers_factorization,
    solve_dense,
)
from sinkhorn_rebasin.assignment.positional import Positional
from sinkhorn_rebasin.assignment.small_matrices import is_small, small_residual
from sinkhorn_rebasin.errors import AssignmentError

__all__ = ["Adjoint", "adjoint", "tangent_residual"]


class _Rows(NamedTuple):
    """Hold the rows of P without losing digits.

    Where rows of P (B, n, n) are nearly saturated, their largest entry is taken out.

    Differences x_j − mean_i(x) then come from sums of small terms and keep their relative accuracy when P
    tends to a permutation; without that the gradient is round-off noise of 1e-6 there.
    """

    rest: Tensor
    rest_sums: Tensor
    sums: Tensor
    column_sums: Tensor
    leader: Tensor | None
    leader_mass: Tensor
    flat: bool

    @classmethod
    def of(cls, matrix: Tensor) -> _Rows:
        """Split P into leading entries and the rest."""
        largest = float(matrix.amax())
        if largest < 0.5:
            sums = matrix.sum(-1)
            return cls(matrix, sums, sums, _column_sums(matrix), None, sums, largest < 0.1)
        mass, leader = matrix.max(-1)
        rest = matrix.scatter(-1, leader.unsqueeze(-1), 0.0)
        rest_sums = rest.sum(-1)
        return cls(rest, rest_sums, rest_sums + mass, _column_sums(rest), leader, mass, False)

    def deviation(self, weighted: Tensor, at_leader: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return row means and the leading gap.

        They are those of x, and x_leader − mean, from Σ rest·x and x_leader.
        """
        if at_leader is None:
            return weighted / self.sums, None
        gap = (self.rest_sums * at_leader - weighted) / self.sums
        return at_leader - gap, gap

    def gather(self, x: Tensor) -> Tensor | None:
        """Gather the leading entry of every row."""
        return None if self.leader is None else x.gather(-1, self.leader)

    def mean(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return row means under P and the leading gap."""
        return self.deviation(torch.bmm(self.rest, x.unsqueeze(-1)).squeeze(-1), self.gather(x))

    def diagonal(self, buffer: Tensor) -> Tensor:
        """Compute the diagonal of S as a Laplacian.

        It is Σ_i P_ij (a_i − P_ij) / a_i. ``buffer`` is overwritten.
        """
        if self.flat:
            # the P_ij / a_i are too small to matter to a preconditioner
            return self.column_sums
        inverse = self.sums.reciprocal()
        squared = self._weighted(inverse, torch.mul(self.rest, self.rest, out=buffer))
        return self.add_leader(self.column_sums - squared, self.rest_sums * inverse).clamp_min(0)

    @staticmethod
    def _weighted(weights: Tensor, matrix: Tensor) -> Tensor:
        return torch.bmm(weights.unsqueeze(-2), matrix).squeeze(-2)

    def columns(self, weights: Tensor) -> Tensor:
        """Sum the weighted rows."""
        return self._weighted(weights, self.rest)

    def add_leader(self, out: Tensor, gap: Tensor | None) -> Tensor:
        """Add values at the leading entries."""
        if self.leader is None or gap is None:
            return out
        return out.scatter_add(-1, self.leader, self.leader_mass * gap)


def tangent_residual(matrix: Tensor, gradient: Tensor) -> Tensor:
    r"""Remove from G what row and column scalings explain.

    Finds α, β with :math:`R = G - \alpha 1^T - 1 \beta^T` such that all row and column sums of
    :math:`P \circ R` vanish. Then dL/dX = P∘R/τ.

    Args:
        matrix: P, shape (B, n, n), >= 0 with positive row and column sums.
        gradient: G = dL/dP, shape (B, n, n).
    """
    rows = _Rows.of(matrix)
    # the only n×n allocation, used three times: fresh memory costs more than a pass over it
    buffer = torch.mul(rows.rest, gradient)
    lead = None if rows.leader is None else gradient.gather(-1, rows.leader.unsqueeze(-1)).squeeze(-1)
    means, gap = rows.deviation(buffer.sum(-1), lead)
    column_sums, explained = _column_sums(buffer), rows.columns(means)
    right_side = rows.add_leader(column_sums - explained, gap)
    beta = _solve(rows, right_side, rows.diagonal(buffer), column_sums.abs() + explained.abs())
    beta_means, beta_gap = rows.mean(beta)
    residual = torch.sub(gradient, (means - beta_means).unsqueeze(-1), out=buffer).sub_(beta.unsqueeze(-2))
    if rows.leader is not None and gap is not None and beta_gap is not None:
        residual.scatter_(-1, rows.leader.unsqueeze(-1), (gap - beta_gap).unsqueeze(-1))
    return residual


def _column_sums(matrix: Tensor) -> Tensor:
    return torch.bmm(matrix.new_ones(matrix.shape[0], 1, matrix.shape[-1]), matrix).squeeze(-2)


def _solve(rows: _Rows, right_side: Tensor, diagonal: Tensor, magnitude: Tensor) -> Tensor:
    """Solve the Schur complement of the column scalings.

    It is S β = right_side with S = diag(b) − Pᵀ diag(1/a) P.
    """
    if prefers_factorization(*rows.sums.shape):
        return _dense(rows, right_side)

    def product(x: Tensor) -> Tensor:
        """Multiply a vector by S."""
        means, gap = rows.mean(x)
        return rows.add_leader(torch.addcmul(-rows.columns(means), rows.column_sums, x), gap)

    eps = torch.finfo(right_side.dtype).eps
    safe = torch.where(diagonal > 0, diagonal, torch.inf)
    start = (right_side.square() / safe).sum(-1).sqrt()
    rounding = (magnitude.square() / safe).sum(-1).sqrt()
    floor = 4 * eps * torch.maximum(start, rounding)
    n = rows.sums.shape[-1]
    solution = conjugate_gradient(product, right_side, diagonal, floor, 40 + n // 4)
    if bool(solution.solved.all()):
        return solution.vector
    dense = _dense(rows, right_side)
    return torch.where(solution.solved.unsqueeze(-1), solution.vector, dense)


def _dense(rows: _Rows, right_side: Tensor) -> Tensor:
    rest = rows.rest.double()
    full = rest
    if rows.leader is not None:
        full = rest.scatter(-1, rows.leader.unsqueeze(-1), rows.leader_mass.double().unsqueeze(-1))
    weights = full.mT @ (full / rows.sums.double().unsqueeze(-1))
    return solve_dense(weights, right_side)


class _Residual(torch.autograd.Function):
    """Compute the tangent residual under vmap.

    It takes (P, G) to R, batched by vmap. For autograd it is a constant.
    """

    @staticmethod
    def forward(matrix: Tensor, gradient: Tensor) -> Tensor:
        """Compute R from P and G."""
        n = matrix.shape[-1]
        if matrix.numel() == 0:
            return torch.zeros_like(matrix)
        flat = matrix.reshape(-1, n, n)
        if is_small(matrix):
            return small_residual(flat, gradient.to(matrix.dtype).reshape(-1, n, n)).reshape(matrix.shape)
        # small systems are factorised in float64, so their right side may as well be exact
        exact = torch.float64 if prefers_factorization(*flat.shape[:2]) else matrix.dtype
        with torch.autocast(matrix.device.type, enabled=False):
            residual = tangent_residual(flat.to(exact), gradient.to(exact).reshape(-1, n, n))
        return residual.to(matrix.dtype).reshape(matrix.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save nothing, for there are no derivatives."""
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        """Raise AssignmentError: this would be a third derivative."""
        raise AssignmentError(
            'Expected at most two derivatives of sinkhorn(gradient="implicit") but got a third; '
            'use gradient="unrolled".'
        )

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Tensor) -> tuple[Tensor, int]:
        """Run over a mapped axis as a batch."""
        return _Residual.apply(*_batched(info.batch_size, in_dims, args)), 0


class Adjoint(torch.autograd.Function):
    """Compute the gradient of the scores from G.

    It takes (P, G, τ) to dL/dX = P∘R/τ, batched by vmap. It is differentiable once more.
    """

    @staticmethod
    def forward(matrix: Tensor, gradient: Tensor, temperature: float) -> Tensor:
        """Compute P∘R/τ from P, G and τ."""
        product = _Residual.forward(matrix, gradient).mul_(matrix)
        return product if temperature == 1.0 else product.div_(temperature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save P, G and τ for the derivatives."""
        matrix, gradient, ctx.temperature = inputs
        ctx.save_for_backward(matrix, gradient)
        ctx.save_for_forward(matrix, gradient)

    @staticmethod
    def jvp(ctx: Any, change: Tensor | None, direction: Tensor | None, *_: Any) -> Tensor:
        """Return the derivative along changes of P and G."""
        # the adjoint of R, applied to W, is P∘R(W / P): what P gains counts like a gradient of its own.
        # P changes by P∘R(dX)/τ, so the quotient is of the size of the scores, and no matter where P is zero
        matrix, gradient = ctx.saved_tensors
        total = torch.zeros_like(gradient) if direction is None else direction
        if change is not None:
            quotient = torch.where(matrix > 0, change / matrix, 0.0)
            total = total + quotient * _Residual.apply(matrix, gradient)
        return Adjoint.apply(matrix, total, ctx.temperature)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of P and G."""
        # ⟨V, J G⟩ = Σ P∘R(V)∘R(G)/τ is stationary in both pairs of potentials, so they count as constants
        matrix, gradient = ctx.saved_tensors
        scaled = _Residual.apply(matrix, direction) / ctx.temperature
        return _Residual.apply(matrix, gradient) * scaled, matrix * scaled, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """Run over a mapped axis as a batch."""
        return Adjoint.apply(*_batched(info.batch_size, in_dims[:2], args[:2]), args[2]), 0


Adjoint.forward.__signature__ = Positional.of(Adjoint.forward)  # type: ignore[attr-defined]


def adjoint(matrix: Tensor, gradient: Tensor, temperature: float) -> Tensor:
    """Return P∘R/τ.

    It can be differentiated again only where somebody might.

    That is where gradients are recorded, along a direction, or inside of a transformation.
    """
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    if torch.is_grad_enabled() or transformed or forward_ad._current_level >= 0:
        return Adjoint.apply(matrix, gradient, temperature)
    return Adjoint.forward(matrix, gradient, temperature)


def _batched(size: int, dims: tuple[Any, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Bring the mapped axis of every tensor first.

    A tensor without one gets it.
    """
    return [
        x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(tensors, dims, strict=True)
    ]
