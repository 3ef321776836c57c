"""Soft permutations of wide groups: a few candidates of each unit besides rank one, and their action."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sinkhorn_rebasin.permutations.layout import Layout

__all__ = ["SparsePattern", "SparsePermutation", "mix_sparsely"]

GATHERED = 2**24
"""Numbers that are gathered at once where a device has no sampled product."""


class SparsePattern:
    """Hold the candidates of each unit, in both orders.

    Args:
        candidates: long, shape (..., n, k): which of the target's units each unit may be.

    >>> pattern = SparsePattern(torch.tensor([[1], [0], [0]]))
    >>> pattern.order.tolist(), pattern.offsets.tolist()
    ([1, 2, 0], [0, 2, 3, 3])
    """

    def __init__(self, candidates: Tensor) -> None:
        self.candidates = candidates
        n, k = candidates.shape[-2:]
        blocks = candidates.reshape(-1, n, k)
        shift = torch.arange(len(blocks), device=candidates.device) * n
        self.flat = (blocks + shift[:, None, None]).reshape(-1, k)

    @cached_property
    def order(self) -> Tensor:
        """Order the candidates by column."""
        return self.flat.flatten().argsort(stable=True)

    @cached_property
    def rows_by_column(self) -> Tensor:
        """List the rows of the candidates, ordered by column."""
        return self.order // self.flat.shape[1]

    @cached_property
    def offsets(self) -> Tensor:
        """Tell where each column's candidates begin in that order."""
        counts = torch.bincount(self.flat.flatten(), minlength=len(self.flat))
        return F.pad(counts.cumsum(0), (1, 0))

    def _pairs(self, dtype: torch.dtype) -> Tensor:
        """Mark the candidates in PyTorch's own sparse form."""
        rows, k = self.flat.shape
        starts, columns = torch.arange(0, rows * k + 1, k, device=self.flat.device), self.flat.flatten()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            zeros = torch.zeros(rows * k, dtype=dtype, device=self.flat.device)
            return torch.sparse_csr_tensor(starts, columns, zeros, (rows, rows), check_invariants=False)

    def product(self, values: Tensor, units: Tensor) -> Tensor:
        """Multiply the candidates' matrix by units, (blocks · n, m)."""
        return F.embedding_bag(self.flat, units, mode="sum", per_sample_weights=values)

    def transposed_product(self, values: Tensor, units: Tensor) -> Tensor:
        """Multiply its transpose by units."""
        weights = values.flatten()[self.order]
        return F.embedding_bag(
            self.rows_by_column,
            units,
            self.offsets,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )

    def sampled_product(self, first: Tensor, second: Tensor) -> Tensor:
        """Take ⟨row i of first, row j of second⟩ at the candidates."""
        if first.device.type != "cpu":
            return self.gathered_product(first, second)
        pairs = self._pairs(first.dtype)
        return torch.sparse.sampled_addmm(pairs, first, second.mT, beta=0.0).values().view(self.flat.shape)

    def gathered_product(self, first: Tensor, second: Tensor, at_once: int = GATHERED) -> Tensor:
        """Take the same products from copies of the rows, some at a time."""
        rows, k = self.flat.shape
        step = max(1, at_once // max(1, k * first.shape[1]))
        parts = [
            torch.einsum("im,ikm->ik", first[at : at + step], second[self.flat[at : at + step]])
            for at in range(0, rows, step)
        ]
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class SparsePermutation:
    r"""Hold a soft permutation as candidates plus rank one.

    .. math:: P = C + \ell r^\top

    It stands where a matrix (..., n, n) stands among soft permutations, and acts in O(nkm) time on units with m
    weights each.

    Args:
        pattern: which pairs are candidates.
        values: of C at the candidates, shape (..., n, k).
        left, right: ℓ and r, shape (..., n).
        watcher: called in the backward pass of each action with dL/d(Pw), (blocks · n, m), and w.

    Example:
        >>> pattern = SparsePattern(torch.tensor([[1], [0]]))
        >>> swap = SparsePermutation(pattern, torch.ones(2, 1), torch.zeros(2), torch.zeros(2))
        >>> swap.to_dense()
        tensor([[0., 1.],
                [1., 0.]])
    """

    pattern: SparsePattern
    values: Tensor
    left: Tensor
    right: Tensor
    watcher: Callable[[Tensor, Tensor], None] | None = None

    @property
    def shape(self) -> torch.Size:
        """Return the shape of the matrix that it stands for."""
        return torch.Size((*self.left.shape, self.left.shape[-1]))

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of its numbers."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Return where its numbers are."""
        return self.values.device

    def is_floating_point(self) -> bool:
        """Tell that it is soft, as tensors do."""
        return True

    def detach(self) -> SparsePermutation:
        """Return it without its gradient."""
        return SparsePermutation(self.pattern, self.values.detach(), self.left.detach(), self.right.detach())

    def to_dense(self) -> Tensor:
        """Write the matrix out, (..., n, n)."""
        spread = self.left.unsqueeze(-1) * self.right.unsqueeze(-2)
        return spread.scatter_add(-1, self.pattern.candidates, self.values)


def mix_sparsely(permutation: SparsePermutation, units: Tensor, layout: Layout) -> Tensor:
    r"""Mix units by a sparse soft permutation.

    Unit i becomes :math:`\sum_j P_{ij}` unit j; units are (blocks · size · inner, ...), and stay so.

    >>> pattern = SparsePattern(torch.tensor([[1], [0]]))
    >>> swap = SparsePermutation(pattern, torch.ones(2, 1), torch.zeros(2), torch.zeros(2))
    >>> mix_sparsely(swap, torch.tensor([[1.0], [2.0]]), Layout(1, 2)).flatten().tolist()
    [2.0, 1.0]
    """
    rows = layout.blocks * layout.size
    real = torch.view_as_real(units) if units.is_complex() else units
    flat = real.reshape(rows, -1)
    given = permutation.values.reshape(rows, -1), permutation.left, permutation.right
    parts = [part.to(flat.device, flat.dtype) for part in given]
    mixed = _SparseProduct.apply(flat, *parts, permutation.pattern, permutation.watcher).view(real.shape)
    return torch.view_as_complex(mixed) if units.is_complex() else mixed


class _SparseProduct(torch.autograd.Function):
    """Multiply units by candidates plus rank one."""

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, values: Tensor, left: Tensor, right: Tensor, pattern: Any, watcher: Any
    ) -> Tensor:
        """Compute C w + ℓ (rᵀ w)."""
        units = units.contiguous()
        mean = _combined(right, units)
        ctx.save_for_backward(units, values, left, right, mean)
        ctx.pattern, ctx.watcher = pattern, watcher
        return _add_rank_one(pattern.product(values, units), left, mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of the units and of P's parts."""
        units, values, left, right, mean = ctx.saved_tensors
        gradient = gradient.contiguous()
        if ctx.watcher is not None:
            ctx.watcher(gradient, units)
        pulled = _combined(left, gradient)
        of_units = of_values = of_left = of_right = None
        if ctx.needs_input_grad[0]:
            of_units = _add_rank_one(ctx.pattern.transposed_product(values, gradient), right, pulled)
        if ctx.needs_input_grad[1]:
            of_values = ctx.pattern.sampled_product(gradient, units)
            of_left = _against(gradient, mean).view_as(left)
            of_right = _against(units, pulled).view_as(right)
        return of_units, of_values, of_left, of_right, None, None


def _combined(weights: Tensor, units: Tensor) -> Tensor:
    """Add up the units of each block with weights, (blocks, m)."""
    rows = weights.reshape(-1, 1, weights.shape[-1])
    return torch.bmm(rows, units.view(len(rows), rows.shape[-1], -1)).squeeze(1)


def _against(units: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each block's units by its vector, (blocks, n)."""
    return torch.bmm(units.view(len(vectors), -1, units.shape[-1]), vectors.unsqueeze(-1)).squeeze(-1)


def _add_rank_one(mixed: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
    """Add a multiple of its block's vector to each unit, in place."""
    columns = weights.reshape(len(vectors), -1, 1)
    mixed.view(len(vectors), columns.shape[1], -1).baddbmm_(columns, vectors.unsqueeze(1))
    return mixed
