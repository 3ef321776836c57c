"""The kernel exp(X / τ) whose entries are one value everywhere but at a few candidates of each row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SparseKernel"]

LEAST_LOG = -700.0
"""Logarithm of the smallest sum that is told from zero."""


class SparseKernel:
    r"""Hold diag(u) K diag(v), sparse plus rank one, for a batch.

    .. math:: K_{ij} = e^{E_{ij}}\ \text{at candidates},\qquad K_{ij} = 1\ \text{elsewhere}

    Every row sums to one at all times; ``sums`` are the column sums, shape (B, n). Scalings are kept as logarithms:
    no temperature takes them out of the range of floating point.

    Args:
        exponents: E = (X − floor) / τ, shape (B, n, k), in double precision.
        candidates: columns of the candidates of each row, shape (B, n, k), distinct in each row.
        log_v: start of the logarithm of the column scalings, shape (B, n).
    """

    def __init__(self, exponents: Tensor, candidates: Tensor, log_v: Tensor) -> None:
        self.exponents, self.log_v = exponents, log_v
        self.columns = candidates.flatten(1)
        self.shape = exponents.shape
        self.everywhere = exponents.shape[1] == exponents.shape[2]
        self._scale_rows()

    def gather(self, x: Tensor) -> Tensor:
        """Read a vector (B, n) over columns at the candidates, (B, n, k)."""
        return x.gather(-1, self.columns).view(self.shape)

    def scatter(self, values: Tensor) -> Tensor:
        """Sum values (B, n, k) by their columns, (B, n)."""
        flat = values.reshape(len(values), -1)
        return flat.new_zeros(self.shape[:2]).scatter_add_(-1, self.columns, flat)

    def _scale_rows(self) -> None:
        at = self.exponents + self.gather(self.log_v)
        peak = at.amax(-1)
        weights = (at - peak.unsqueeze(-1)).exp_()
        rest = self._rest(self.log_v, lambda v: self.gather(v).sum(-1))
        log_sums = torch.logaddexp(peak + weights.sum(-1).log(), rest)
        self.log_u = -log_sums
        self.matrix = weights.mul_((peak - log_sums).exp_().unsqueeze(-1))
        rest = self.log_v + self._rest(self.log_u, lambda u: self.scatter(u.unsqueeze(-1).expand(self.shape)))
        self.log_sums = torch.logaddexp(self.scatter(self.matrix).log(), rest).clamp_min(LEAST_LOG)
        self.sums = self.log_sums.exp()
        self._balance()

    def _rest(self, logarithms: Tensor, summed_at_candidates: object) -> Tensor:
        """Return the logarithm of what is no candidate's, (B, n)."""
        if self.everywhere:
            return torch.full_like(logarithms, -torch.inf)
        peak = logarithms.amax(-1, keepdim=True)
        scaled = (logarithms - peak).exp_()
        rest = scaled.sum(-1, keepdim=True) - summed_at_candidates(scaled)  # type: ignore[operator]
        return peak + rest.clamp_min(0.0).log()

    def _balance(self) -> None:
        """Split P into left ⊗ right and what candidates have besides."""
        if self.everywhere:
            self.left, self.right = torch.zeros_like(self.log_u), torch.zeros_like(self.log_v)
            self.extra = self.matrix
            return
        # Both factors stay within the range of single precision: no pair but a candidate exceeds one.
        half = 0.5 * (self.log_v.amax(-1, keepdim=True) - self.log_u.amax(-1, keepdim=True))
        self.left, self.right = (self.log_u + half).exp(), (self.log_v - half).exp()
        self.extra = self.matrix - self.left.unsqueeze(-1) * self.gather(self.right)

    def move(self, step: Tensor) -> Tensor:
        """Add to the logarithm of the column scalings.

        Returns the change of Σ log(row sums), shape (B, 1).
        """
        before = self.log_u
        self.log_v = self.log_v + step
        self._scale_rows()
        return (before - self.log_u).sum(-1, keepdim=True)

    def error(self) -> float:
        """Return the column sums' largest deviation from one."""
        return float((self.sums - 1).abs().amax())

    def rows(self, x: Tensor) -> Tensor:
        """Multiply P by a vector over columns, (B, n)."""
        return (self.extra * self.gather(x)).sum(-1) + self.left * (self.right * x).sum(-1, keepdim=True)

    def columns_of(self, y: Tensor) -> Tensor:
        """Multiply the transpose of P by a vector over rows, (B, n)."""
        return self.scatter(self.extra * y.unsqueeze(-1)) + self.right * (self.left * y).sum(-1, keepdim=True)

    def schur_product(self, x: Tensor) -> Tensor:
        """Multiply by diag(column sums) − PᵀP, shape (B, n)."""
        return self.sums * x - self.columns_of(self.rows(x))

    def schur_diagonal(self) -> Tensor:
        """Compute the diagonal of that matrix, shape (B, n)."""
        squares = self.scatter(self.matrix.square())
        if not self.everywhere:
            spread = self.left.square()
            at = self.scatter(spread.unsqueeze(-1).expand(self.shape))
            squares = squares + self.right.square() * (spread.sum(-1, keepdim=True) - at).clamp_min(0.0)
        return (self.sums - squares).clamp_min(0.0)

    def gram(self) -> Tensor:
        """Compute PᵀP, shape (B, n, n), for small n."""
        full = self.left.unsqueeze(-1) * self.right.unsqueeze(-2)
        full = full.scatter_add(-1, self.columns.view(self.shape), self.extra)
        return full.mT @ full
