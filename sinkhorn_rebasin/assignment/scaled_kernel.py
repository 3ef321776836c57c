"""The kernel exp(X / τ) between row and column scalings, kept in the range of floating point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin.assignment.sums import weighted_column_sums

__all__ = ["ScaledKernel"]


class ScaledKernel:
    """Hold a kernel between row and column scalings.

    It is diag(u) K diag(v) with K = exp(X / τ + offset − row maximum), for a batch.

    Every row of it sums to one at all times; ``sums`` are its column sums, shape (B, n). When the column
    scalings v drift far from one they are absorbed into the offset and K is computed anew, so neither K nor
    the scalings over- or underflow where it matters.

    Args:
        scores: X, shape (B, n, n), finite.
        temperature: τ > 0.
        potential: Start y = τ·log v, shape (B, n).
        tame: Whether (X + y) / τ is known to be of moderate size.
    """

    def __init__(
        self, scores: Tensor, temperature: float, potential: Tensor, small_spread: bool = False
    ) -> None:
        self.scores, self.temperature = scores, temperature
        self.drift_limit = 20.0 if scores.dtype == torch.float32 else 150.0
        self.offset = potential / temperature
        self._absorb(small_spread)
        if bool((self.sums < 1e-12).any()):
            # a column nobody wants: one sweep in logarithms leaves every column sum above 1/n
            exponents = self._exponents()
            exponents -= exponents.logsumexp(-1, keepdim=True)
            self.offset = self.offset - exponents.logsumexp(-2)
            self._absorb()

    def _exponents(self) -> Tensor:
        return torch.add(self.offset.unsqueeze(-2), self.scores, alpha=1.0 / self.temperature)

    def _absorb(self, small_spread: bool = False) -> None:
        # one n×n allocation: fresh memory costs more than a pass over it
        kernel = self._exponents()
        if not small_spread:
            kernel.sub_(kernel.amax(-1, keepdim=True))
        self.kernel = kernel.exp_() if small_spread else _flushed(kernel.exp_())
        self.u = kernel.sum(-1).reciprocal()
        self.v = torch.ones_like(self.offset)
        self._log_v = torch.zeros_like(self.offset)
        self.sums = self._columns(self.u)

    def _rows(self, weights: Tensor) -> Tensor:
        return torch.bmm(self.kernel, weights.unsqueeze(-1)).squeeze(-1)

    def _columns(self, weights: Tensor) -> Tensor:
        return weighted_column_sums(weights, self.kernel)

    @property
    def log_scaling(self) -> Tensor:
        """Return the logarithm of the column scalings.

        They are relative to exp(X / τ), shape (B, n).
        """
        return self.offset + self._log_v

    def move(self, step: Tensor) -> Tensor:
        """Add to the logarithm of the column scalings.

        Returns the change of Σ log(row sums), shape (B, 1).
        """
        before = self.u
        # kept apart from the offset, whose size would swallow the last digits of small steps
        self._log_v = self._log_v + step
        self.v = self._log_v.exp()
        self.u = self._rows(self.v).reciprocal()
        self.sums = self.v * self._columns(self.u)
        change = (before / self.u).log().sum(-1, keepdim=True)
        if float(self._log_v.abs().amax()) > self.drift_limit:
            self.offset = self.log_scaling
            self._absorb()
        return change

    def error(self) -> float:
        """Return the column sums' largest deviation from one.

        It is taken over the batch.
        """
        return float((self.sums - 1).abs().amax())

    def schur_product(self, x: Tensor) -> Tensor:
        """Multiply by the Schur complement of the dual.

        It is (diag(column sums) − PᵀP) x by two products with K, shape (B, n).
        """
        inner = self.u.square() * self._rows(self.v * x)
        return torch.addcmul(self.sums * x, self.v, self._columns(inner), value=-1)

    def gram(self) -> Tensor:
        """Compute PᵀP, shape (B, n, n)."""
        matrix = self.kernel * self.v.unsqueeze(-2)
        matrix *= self.u.unsqueeze(-1)
        return matrix.mT @ matrix

    def into_matrix(self) -> Tensor:
        """Turn the kernel into P.

        P is (B, n, n). It takes the kernel's memory, so this is the last call.
        """
        return _flushed(self.kernel.mul_(self.v.unsqueeze(-2)).mul_(self.u.unsqueeze(-1)))


def _flushed(matrix: Tensor) -> Tensor:
    """Set entries to zero whose products would underflow.

    The matrix is changed in place. Products leave the range of normal numbers there.

    Processors multiply subnormal numbers a hundred times slower, and nothing that small changes a sum of a row.
    """
    limits = torch.finfo(matrix.dtype)
    return F.threshold(matrix, limits.tiny / limits.eps, 0.0, inplace=True)
